"""Which glibc a program needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from release.glibc import floor_of, parsed, versions_in

SYMBOLS = """
0000000000000000      DF *UND*  0000000000000000 (GLIBC_2.2.5) free
0000000000000000      DF *UND*  0000000000000000  GLIBC_2.34  __libc_start_main
0000000000000000  w   D  *UND*  0000000000000000              __gmon_start__
0000000000000000      DF *UND*  0000000000000000 (GLIBC_PRIVATE) _dl_catch
0000000000000000      DF *UND*  0000000000000000 (GLIBCXX_3.4.30) _Znwm
0000000000055f70 g    DF .text  0000000000000037  GLIBC_2.38  defined_here
"""


def test_only_what_is_asked_of_glibc_counts() -> None:
    """What a file defines itself, what is private, and what is asked of other libraries is left out."""
    assert versions_in(SYMBOLS) == [(2, 2), (2, 34)]


def test_versions_compare_as_numbers() -> None:
    """2.4 is older than 2.28."""
    assert parsed("2.4") < parsed("2.28") < parsed("2.34")


def test_floor_of_a_program() -> None:
    """The floor of a program of this machine is the newest version that readelf tells, and the program is named."""
    program = Path(shutil.which("bash") or "").resolve()
    told = subprocess.run(["readelf", "-W", "--version-info", program], capture_output=True, text=True, check=True).stdout
    newest = max((2, int(minor)) for minor in re.findall(r"Name: GLIBC_2\.(\d+)", told))
    assert floor_of([program], cwd=program.parent) == (newest, program)


def test_folders_are_searched(tmp_path: Path) -> None:
    """A file deep in a folder counts; what is no ELF file, or is a link, does not."""
    program = Path(shutil.which("bash") or "").resolve()
    inside = tmp_path / "a" / "b" / "library.so"
    inside.parent.mkdir(parents=True)
    shutil.copy(program, inside)
    (tmp_path / "text").write_text("GLIBC_2.99")
    (tmp_path / "link").symlink_to(inside)
    assert floor_of([tmp_path], cwd=tmp_path)[1] == inside


def test_nothing_asks_for_nothing(tmp_path: Path) -> None:
    """Without an ELF file there is no floor, and no file that is the cause of it."""
    (tmp_path / "text").write_text("hello")
    assert floor_of([tmp_path], cwd=tmp_path) == ((0, 0), None)


@pytest.mark.parametrize("version", ["", "2", "x.y"])
def test_what_is_no_version(version: str) -> None:
    """What is no version is an error, not the oldest one."""
    with pytest.raises(ValueError, match="invalid literal"):
        parsed(version)
