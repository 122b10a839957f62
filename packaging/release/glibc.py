"""Which glibc a program needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from release.commands import answer

_ELF = b"\x7fELF"
_NEEDED = re.compile(r"\*UND\*.*\(?GLIBC_(\d+)\.(\d+)")

Floor = tuple[int, int]


def floor_of(paths: Iterable[Path], *, cwd: Path) -> tuple[Floor, Path | None]:
    """The newest version of glibc that any ELF file asks for, and the first file that asks for it.

    A file of one piece shows only what its loader needs, so the unpacked program must be among the paths; folders are
    searched.
    """
    floor: Floor = (0, 0)
    cause: Path | None = None
    for path in sorted(_elf_files(paths)):
        needed = max(versions_in(answer("objdump", "-T", path, cwd=cwd)), default=(0, 0))
        if needed > floor:
            floor, cause = needed, path
    return floor, cause


def versions_in(symbols: str) -> list[Floor]:
    """The versions of glibc in what `objdump -T` prints; what a file itself defines is not asked of others."""
    return [(int(major), int(minor)) for major, minor in _NEEDED.findall(symbols)]


def parsed(version: str) -> Floor:
    """A version such as 2.28 as numbers, which compare."""
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _elf_files(paths: Iterable[Path]) -> Iterable[Path]:
    for path in paths:
        files = path.rglob("*") if path.is_dir() else [path]
        for file in files:
            if file.is_file() and not file.is_symlink() and _begins_as_elf(file):
                yield file


def _begins_as_elf(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(len(_ELF)) == _ELF
