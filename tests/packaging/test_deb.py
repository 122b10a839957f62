"""The Debian package: what is in it, how it is versioned, and that it comes and goes."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli.parser import DEFAULT_CONFIG
from release.deb import DOC, PACKAGE, SCRIPTS, build_deb, debian_version

CHECKOUT = Path(__file__).resolve().parents[2]
EPOCH = 1_800_000_000
VERSION = "1.2.3"

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb here (it is Debian's)")


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """Make a stand-in for the program."""
    made = tmp_path / "program"
    made.write_text("#!/bin/sh\necho it runs\n")
    made.chmod(0o755)
    return made


@pytest.fixture
def deb(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the package of the stand-in."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    return build_deb(binary, version=VERSION, architecture="all", out=tmp_path / "out" / "gateway.deb")


def dpkg_deb(*arguments: str | Path) -> str:
    """What dpkg-deb prints."""
    return subprocess.run(
        ["dpkg-deb", *arguments], env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=True
    ).stdout


# --- versions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("1.2.3", "1.2.3"),
        ("1.2.3+5.gabcdef0", "1.2.3+5.gabcdef0"),
        ("1.2.3-rc.1", "1.2.3~rc.1"),
        ("1.2.3-rc-1+5.gabcdef0", "1.2.3~rc.1+5.gabcdef0"),
        ("0.0.0+21.gabcdef0.dirty", "0.0.0+21.gabcdef0.dirty"),
    ],
)
def test_versions_in_debians_words(version: str, wanted: str) -> None:
    """A version is written as Debian writes it, without a hyphen, which would begin a revision."""
    assert debian_version(version) == wanted


def test_versions_are_ordered() -> None:
    """A later version is a later one to dpkg: pre-releases, then the release, then what comes after it."""
    ordered = ["1.2.2", "1.2.3-rc.1", "1.2.3-rc.1+2.gabcdef0", "1.2.3-rc.2", "1.2.3", "1.2.3+9.g0", "1.2.3+10.g0", "1.2.4-rc.1"]
    for before, after in itertools.pairwise(debian_version(version) for version in ordered):
        assert subprocess.run(["dpkg", "--compare-versions", before, "lt", after], check=False).returncode == 0, (before, after)


# --- what is in it -----------------------------------------------------------------------------------------------


def test_what_is_installed(deb: Path) -> None:
    """The package has the program, its unit, an example of the configuration and the pages, all of them root's."""
    lines = [line.split() for line in dpkg_deb("--contents", deb).splitlines()]
    assert {owner for _, owner, *_ in lines} == {"root/root"}
    modes = {line[-1].removeprefix("."): line[0] for line in lines}
    assert modes[f"/usr/bin/{PACKAGE}"] == "-rwxr-xr-x"
    for unit in ("service", "socket"):
        assert modes[f"/usr/lib/systemd/system/{PACKAGE}.{unit}"] == "-rw-r--r--"
    # Made when it is installed, if nobody has.
    assert "/etc/lightfile6/" not in modes
    pages = {f"docs/{page.name}" for page in (CHECKOUT / "docs").glob("*.md")}
    expected = {"README.md", "copyright", "changelog.gz", "NEWS.md.gz", "examples/config.yml.example", *pages}
    assert expected == {path.removeprefix(f"/{DOC}/") for path in modes if path.startswith(f"/{DOC}/") and not path.endswith("/")}


def test_no_configuration_is_installed(deb: Path) -> None:
    """Nothing lies where the program reads its configuration, so that nothing starts before a person has written one."""
    assert str(DEFAULT_CONFIG) not in dpkg_deb("--contents", deb)


def test_what_dpkg_is_told(binary: Path, tmp_path: Path) -> None:
    """Name, version, architecture and the glibc that is needed stand in the package as they were given."""
    made = build_deb(
        binary, version="1.2.3-rc.1", architecture="arm64", out=tmp_path / "a.deb", glibc="2.31", maintainer="A <a@b.c>"
    )
    told = dpkg_deb("--field", made, "Package", "Version", "Architecture", "Depends", "Maintainer").splitlines()
    assert told == [
        f"Package: {PACKAGE}",
        "Version: 1.2.3~rc.1",
        "Architecture: arm64",
        "Depends: libc6 (>= 2.31), passwd",
        "Maintainer: A <a@b.c>",
    ]


def test_same_input_same_package(binary: Path, deb: Path, tmp_path: Path) -> None:
    """Built again later, under another umask and into another place, the package is the same to the byte."""
    os.utime(binary, (0, 0))
    before = os.umask(0o077)
    try:
        again = build_deb(binary, version=VERSION, architecture="all", out=tmp_path / "elsewhere" / "b.deb")
    finally:
        os.umask(before)
    assert again.read_bytes() == deb.read_bytes()
    assert " 2027-01-15 08:00 " in dpkg_deb("--contents", deb)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_of_the_plain_shell(script: str) -> None:
    """A script of the package has no fault that sh finds by reading it."""
    done = subprocess.run(["sh", "-n", CHECKOUT / "packaging" / "deb" / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- coming and going --------------------------------------------------------------------------------------------

# This system with everything that is written to it thrown away: a layer of memory over its files, in a mount namespace.
ON_A_COPY = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/system"
cp "$2" "$1/upper/gateway.deb"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/system"
mount --rbind /dev "$1/system/dev"
exec chroot "$1/system" sh -euc "$3"
"""


def on_a_copy(deb: Path, folder: Path, script: str) -> list[str]:
    """Run a script on a copy of this system that has the package at /gateway.deb; return the lines that it printed."""
    if os.geteuid() != 0:
        pytest.skip("only root can try the package on a copy of this system")
    folder.mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", ON_A_COPY, "sh", folder, deb, script],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_installed_it_runs_and_starts_nothing(deb: Path, tmp_path: Path) -> None:
    """Where no systemd runs the package installs just so: the program is there, and who may read what is settled."""
    said = on_a_copy(
        deb,
        tmp_path / "copy",
        f"""
        dpkg --install /gateway.deb
        {PACKAGE}
        stat --format '%A %U %G' /etc/lightfile6
        getent passwd lightfile6 | cut -d: -f1,6,7
        dpkg --verify {PACKAGE}
        find /etc/systemd/system -name '{PACKAGE}*'
        """,
    )
    assert any("nothing is started before it is configured" in line for line in said)
    shell = "lightfile6:/nonexistent:/usr/sbin/nologin"
    assert said[-3:] == ["it runs", "drwxr-x--- root lightfile6", shell]


def test_what_an_operator_chose_stays(deb: Path, tmp_path: Path) -> None:
    """A second installation changes neither the configuration nor who may read it, and leaves the user alone."""
    said = on_a_copy(
        deb,
        tmp_path / "copy",
        """
        dpkg --install /gateway.deb >/dev/null
        echo 'cache_dir: /srv' >/etc/lightfile6/config.yml
        chmod 0755 /etc/lightfile6
        getent passwd lightfile6 >/before
        dpkg --install /gateway.deb
        getent passwd lightfile6 | cmp - /before
        stat --format '%A' /etc/lightfile6
        cat /etc/lightfile6/config.yml
        """,
    )
    assert said[-2:] == ["drwxr-xr-x", "cache_dir: /srv"]
    assert not any("before it is configured" in line for line in said)


def test_removed_it_leaves_the_configuration(deb: Path, tmp_path: Path) -> None:
    """Removing takes the program and leaves the configuration and the spool; only a purge takes the configuration."""
    said = on_a_copy(
        deb,
        tmp_path / "copy",
        f"""
        dpkg --install /gateway.deb >/dev/null
        touch /etc/lightfile6/config.yml /etc/lightfile6/environment
        dpkg --remove {PACKAGE} >/dev/null
        ls /etc/lightfile6
        if test -e /usr/bin/{PACKAGE}; then exit 1; fi
        dpkg --purge {PACKAGE} >/dev/null
        if test -e /etc/lightfile6; then exit 1; fi
        """,
    )
    assert said == ["config.yml", "environment"]


def test_purged_it_leaves_the_data(deb: Path, tmp_path: Path) -> None:
    """A purge leaves the spool as it is, and says so, since only a person deletes what was not delivered."""
    said = on_a_copy(
        deb,
        tmp_path / "copy",
        f"""
        dpkg --install /gateway.deb >/dev/null
        mkdir -p /var/lib/{PACKAGE}/usage /var/cache/{PACKAGE}
        echo kept >/var/lib/{PACKAGE}/usage/1.jsonl
        chown -R lightfile6 /var/lib/{PACKAGE}
        dpkg --purge {PACKAGE}
        if test -e /var/cache/{PACKAGE}; then exit 1; fi
        cat /var/lib/{PACKAGE}/usage/1.jsonl
        stat --format %U /var/lib/{PACKAGE}/usage/1.jsonl
        """,
    )
    assert any("only a person deletes" in line for line in said)
    assert said[-2:] == ["kept", "lightfile6"]
