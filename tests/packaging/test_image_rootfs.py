"""The root file system of the image: the program, what it needs from the machine, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from image.libraries import ImageError, architecture, system_of
from image.rootfs import CERTIFICATES, DATA, HOME, SYSTEM_CERTIFICATES, USER_ID, make
from testkit.gateway_process import PROGRAM

EPOCH = 1_800_000_000
# A program that needs a library which needs a library: coreutils with SELinux has it in every glibc distribution.
ORDINARY = Path("/bin/ls").resolve()
NEEDED, NEEDED_BY_THAT = "libselinux.so.1", "libpcre2-8.so.0"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Make a stand-in for the unpacked program, from a program of this machine."""
    folder = tmp_path / "bundle"
    (folder / "_internal" / "gateway").mkdir(parents=True)
    about = {"number": "1.2.3", "commit": "c0ffee", "built": "2026-11-21T00:00:00Z"}
    (folder / "_internal" / "gateway" / "version.json").write_text(json.dumps(about))
    (folder / "_internal" / "botocore").mkdir()
    (folder / "_internal" / "botocore" / "cacert.pem").write_text("the bundled ones\n")
    shutil.copy(ORDINARY, folder / PROGRAM)
    return folder


def test_libraries_of_libraries_are_found(bundle: Path) -> None:
    """The loader, the libraries of the program and those of its libraries are found on this machine."""
    system = system_of(bundle, bundle / "_internal")
    assert system.interpreter.name.startswith("ld-linux")
    assert {"libc.so.6", NEEDED, NEEDED_BY_THAT} <= set(system.libraries)
    assert all(path.is_absolute() and path.is_file() for path in system.libraries.values())
    assert system.libraries["libc.so.6"].parent == system.folder


def test_what_glibc_opens_by_itself_is_found(bundle: Path) -> None:
    """The library without which glibc cannot end a thread is there, though nothing says that it is needed."""
    assert "libgcc_s.so.1" in system_of(bundle, bundle / "_internal").libraries


def test_a_missing_library_is_told(bundle: Path) -> None:
    """A library that is nowhere is an error that names it and who needs it."""
    program = bundle / PROGRAM
    program.write_bytes(program.read_bytes().replace(NEEDED.encode(), b"libabsentx.so.1"))
    with pytest.raises(
        ImageError, match=rf"libabsentx\.so\.1, which .*{PROGRAM} needs, is neither beside it nor on this machine"
    ):
        system_of(bundle, bundle / "_internal")


def test_what_is_beside_the_program_is_not_taken_from_the_machine(bundle: Path) -> None:
    """A library of the bundle serves the other libraries of the bundle; the machine's is not taken as well."""
    internal = bundle / "_internal"
    shutil.copy(shutil.which("true") or "", bundle / PROGRAM)
    shutil.copy(ORDINARY, internal / "module.so")
    assert NEEDED in system_of(bundle, internal).libraries
    shutil.copy(system_of(bundle, internal).libraries[NEEDED], internal / NEEDED)
    assert NEEDED not in system_of(bundle, internal).libraries


def test_the_program_itself_finds_only_the_machines(bundle: Path) -> None:
    """What the program needs to begin has to be the machine's, though it lies among its libraries as well."""
    internal = bundle / "_internal"
    shutil.copy(system_of(bundle, internal).libraries[NEEDED], internal / NEEDED)
    assert NEEDED in system_of(bundle, internal).libraries


def test_what_is_no_program_is_told(bundle: Path, tmp_path: Path) -> None:
    """A script in place of the program, or no program at all, is an error."""
    (bundle / PROGRAM).write_text("#!/bin/sh\n")
    with pytest.raises(ImageError, match="is no program for amd64 or arm64"):
        architecture(bundle / PROGRAM)
    (bundle / PROGRAM).unlink()
    with pytest.raises(ImageError, match="run scripts/build first"):
        make(bundle, tmp_path, EPOCH)


def entries(archive: Path) -> dict[str, tarfile.TarInfo]:
    """The entries of an archive by their paths."""
    with tarfile.open(archive) as opened:
        return {f"/{entry.name}": entry for entry in opened}


def test_the_root_file_system(bundle: Path, tmp_path: Path) -> None:
    """All of it is root's and cannot be changed, but for the folder of the data and /tmp."""
    (bundle / "_internal" / "link.so").symlink_to("gateway/version.json")
    made = make(bundle, tmp_path, EPOCH)
    assert (made.version, made.commit, made.built) == ("1.2.3", "c0ffee", "2026-11-21T00:00:00Z")
    assert made.archive.name == f"rootfs-{architecture(bundle / PROGRAM)}.tar"
    found = entries(made.archive)
    assert found[f"{HOME}/{PROGRAM}"].mode == 0o755
    assert found[f"{HOME}/_internal/gateway/version.json"].mode == 0o644
    assert found[f"{HOME}/_internal/link.so"].linkname == "gateway/version.json"
    assert (found[DATA].uid, found[DATA].gid, found[DATA].mode) == (USER_ID, USER_ID, 0o700)
    assert found["/tmp"].mode == stat.S_ISVTX | 0o777
    assert {entry.uid for path, entry in found.items() if path != DATA} == {0}
    writable = {path for path, entry in found.items() if entry.mode & 0o022 and not entry.issym()}
    assert writable == {"/tmp"}
    missing = {str(Path(path).parent) for path in found} - {"/", *found}
    assert missing == set(), "a folder that is not in the archive has whatever owner the builder gives it"


def test_names_and_hosts(bundle: Path, tmp_path: Path) -> None:
    """The user has a name, and glibc looks into /etc/hosts before it asks the network."""
    with tarfile.open(make(bundle, tmp_path, EPOCH).archive) as opened:
        texts = {name: opened.extractfile(f"etc/{name}") for name in ("passwd", "group", "nsswitch.conf")}
        read = {name: file.read().decode() for name, file in texts.items() if file is not None}
    assert f"lightfile6:x:{USER_ID}:{USER_ID}:" in read["passwd"]
    assert f"lightfile6:x:{USER_ID}:" in read["group"]
    assert "hosts: files dns\n" in read["nsswitch.conf"]


def test_same_input_same_root_file_system(bundle: Path, tmp_path: Path) -> None:
    """Times and permissions of the files that are put into it do not show in the archive."""
    first = make(bundle, tmp_path / "first", EPOCH).archive.read_bytes()
    for path in sorted(bundle.rglob("*")):
        path.chmod(0o700 if path.stat().st_mode & 0o100 else 0o600)
        os.utime(path, (0, 0))
    assert make(bundle, tmp_path / "second", EPOCH).archive.read_bytes() == first
    assert make(bundle, tmp_path / "third", EPOCH + 1).archive.read_bytes() != first


def test_certificate_authorities(bundle: Path, tmp_path: Path) -> None:
    """The authorities are the machine's, else those that come with the program; without any there is no image."""
    nowhere = tmp_path / "nowhere"
    machine = tmp_path / "machine.pem"
    machine.write_text("the machine's\n")
    for candidates, wanted in (((nowhere, machine), "the machine's\n"), ((nowhere,), "the bundled ones\n")):
        with tarfile.open(make(bundle, tmp_path, EPOCH, certificates=candidates).archive) as opened:
            file = opened.extractfile(CERTIFICATES[1:])
            assert file is not None
            assert file.read().decode() == wanted
    (bundle / "_internal" / "botocore" / "cacert.pem").unlink()
    with pytest.raises(ImageError, match="no certificate authorities"):
        make(bundle, tmp_path, EPOCH, certificates=(nowhere,))
    assert Path(CERTIFICATES) in SYSTEM_CERTIFICATES
