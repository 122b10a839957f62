"""What a bundle of programs and libraries needs from the machine that it was built on."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ELF_MAGIC = b"\x7fELF"
# By e_machine of the ELF header, which stands at byte 18 in the order of bytes of both.
ARCHITECTURES = {0x3E: "amd64", 0xB7: "arm64"}

# glibc opens these by name when it comes to need them, so no header tells. libgcc_s ends threads: without it a thread
# that Python ends at its exit takes the whole process with it (abort instead of the exit code).
OPENED_BY_GLIBC = ("libgcc_s.so.1",)
# Names of hosts; from this version on it is a part of libc.
OPENED_BY_OLD_GLIBC = ("libnss_files.so.2", "libnss_dns.so.2")
GLIBC_WITH_NSS = (2, 34)

_LDD_TIMEOUT_S = 60
_FOUND = re.compile(r"^\s*(?P<name>\S+) => (?P<path>/.*) \(0x[0-9a-f]+\)$")
_INTERPRETER = re.compile(r"^\s*(?P<path>/\S+) \(0x[0-9a-f]+\)$")
_MISSING = re.compile(r"^\s*(?P<name>\S+) => not found$")
_KERNEL = re.compile(r"^\s*linux-(vdso|gate)\S* \(0x[0-9a-f]+\)$")
_STATIC = re.compile(r"^\s*(statically linked|not a dynamic executable)$")


class ImageError(Exception):
    """The image cannot be made; each line of the text is one fault."""


@dataclass(frozen=True)
class System:
    """What has to stand beside a bundle.

    Attributes:
        interpreter: the loader of programs (`ld-linux`), where the programs look for it.
        folder: where libc was found, so a folder in which that loader looks without being told.
        libraries: by the name under which they are asked for, where they were found.
    """

    interpreter: Path
    folder: Path
    libraries: dict[str, Path]


def architecture(program: Path) -> str:
    """The architecture of a program, as Docker and Debian name it: `amd64`.

    Raises:
        ImageError: it is no ELF file, or of another architecture than those that are known.
    """
    head = program.read_bytes()[:20]
    found = ARCHITECTURES.get(int.from_bytes(head[18:20], "little")) if head.startswith(ELF_MAGIC) else None
    if found is None:
        raise ImageError(f"{program} is no program for {' or '.join(ARCHITECTURES.values())}")
    return found


def system_of(bundle: Path, internal: Path) -> System:
    """Find the loader and all libraries that the ELF files below `bundle` need and that are not among them.

    Args:
        bundle: the folder with the program.
        internal: the folder in it that the program puts before those of the system once it runs.

    Raises:
        ImageError: a library is nowhere to be found, or there is no glibc; every library that is missing is named.
    """
    interpreters: set[Path] = set()
    libraries: dict[str, Path] = {}
    faults: list[str] = []
    for path in _elf_files(bundle):
        # Until it has started itself a second time, the program is without its own folder of libraries.
        _read(_ldd(path, None if path.parent == bundle else internal), path, interpreters, libraries, faults)
    if not faults and "libc.so.6" not in libraries:
        faults.append(f"{bundle} needs no libc.so.6, so it is not for glibc, which is all that is known here")
    if not faults:
        _read_opened(libraries["libc.so.6"].parent, interpreters, libraries, faults)
    if not faults and len(interpreters) != 1:
        faults.append(f"{bundle} needs {len(interpreters)} loaders instead of one: {sorted(map(str, interpreters))}")
    if faults:
        raise ImageError("\n".join(faults))
    outside = {name: path for name, path in libraries.items() if not path.is_relative_to(bundle.resolve())}
    return System(interpreters.pop(), libraries["libc.so.6"].parent, dict(sorted(outside.items())))


def _elf_files(bundle: Path) -> list[Path]:
    found = []
    for path in sorted(bundle.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(ELF_MAGIC)) == ELF_MAGIC:
                    found.append(path)
    return found


def _ldd(path: Path, first: Path | None) -> str:
    """What the loader says that it would load, libraries of libraries included."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LD_")}
    if first is not None:
        environment["LD_LIBRARY_PATH"] = str(first.resolve())
    try:
        done = subprocess.run(  # noqa: S603 (the path is that of a file of our own build)
            ["ldd", str(path.resolve())],  # noqa: S607 (ldd is wherever the PATH has it)
            env=environment | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LDD_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise ImageError("there is no ldd here, which comes with glibc (on Debian the package libc-bin)") from error
    if done.returncode != 0 and not _STATIC.search(done.stdout + done.stderr):
        raise ImageError(f"ldd {path} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _read(said: str, path: Path, interpreters: set[Path], libraries: dict[str, Path], faults: list[str]) -> None:
    """Read what ldd said of a file into the collections."""
    for line in said.splitlines():
        if found := _FOUND.match(line):
            libraries[found["name"]] = Path(found["path"])
        elif found := _INTERPRETER.match(line):
            interpreters.add(Path(found["path"]))
        elif found := _MISSING.match(line):
            faults.append(f"{found['name']}, which {path} needs, is neither beside it nor on this machine")
        elif line and not _KERNEL.match(line) and not _STATIC.match(line):
            # A line that is not understood may be a library that is then not there when the image runs.
            faults.append(f"ldd says of {path} what is not understood here: {line.strip()}")


def _read_opened(folder: Path, interpreters: set[Path], libraries: dict[str, Path], faults: list[str]) -> None:
    """Add what glibc opens by itself, which lies beside libc."""
    names = OPENED_BY_GLIBC if glibc_version() >= GLIBC_WITH_NSS else OPENED_BY_GLIBC + OPENED_BY_OLD_GLIBC
    for name in names:
        path = folder / name
        if path.exists():
            libraries[name] = path
            _read(_ldd(path, None), path, interpreters, libraries, faults)
        else:
            faults.append(f"{path}, which glibc opens when it needs it, is not on this machine")


def glibc_version() -> tuple[int, int]:
    """The version of this machine's glibc, (0, 0) where there is none."""
    found = re.fullmatch(r"glibc (\d+)\.(\d+)", os.confstr("CS_GNU_LIBC_VERSION") or "")
    return (int(found[1]), int(found[2])) if found else (0, 0)
