"""A tar.gz that is the same to the byte whenever it is made of the same files."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from release.archive import write_archive
from testkit.release import EPOCH

PROGRAMS = frozenset({"program"})


@pytest.fixture
def members(tmp_path: Path) -> dict[str, Path]:
    """Make three files, in no order."""
    made = {}
    for name in ("program", "README.md", "LICENSE"):
        made[name] = tmp_path / f"source of {name}"
        made[name].write_text(f"content of {name}")
    return made


def test_members(members: dict[str, Path], tmp_path: Path) -> None:
    """The members are sorted, below a folder of the archive's name, root's, of one time; only the program is executable."""
    out = write_archive(tmp_path / "thing_1.2.3.tar.gz", members, programs=PROGRAMS, epoch=EPOCH)
    with tarfile.open(out) as archive:
        found = archive.getmembers()
        assert archive.extractfile("thing_1.2.3/LICENSE").read() == b"content of LICENSE"  # type: ignore[union-attr]
    assert [(one.name, oct(one.mode)) for one in found] == [
        ("thing_1.2.3/LICENSE", "0o644"),
        ("thing_1.2.3/README.md", "0o644"),
        ("thing_1.2.3/program", "0o755"),
    ]
    assert {(one.uid, one.gid, one.uname, one.gname, one.mtime) for one in found} == {(0, 0, "root", "root", EPOCH)}


def test_the_same_files_give_the_same_bytes(members: dict[str, Path], tmp_path: Path) -> None:
    """Neither the order, nor times, nor modes, nor the place of the archive change a byte of it."""
    first = write_archive(tmp_path / "one" / "thing.tar.gz", members, programs=PROGRAMS, epoch=EPOCH)
    for path in members.values():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    again = write_archive(
        tmp_path / "two" / "thing.tar.gz", dict(reversed(list(members.items()))), programs=PROGRAMS, epoch=EPOCH
    )
    assert first.read_bytes() == again.read_bytes()


def test_the_head_tells_no_time_and_no_name(members: dict[str, Path], tmp_path: Path) -> None:
    """The head of the gzip has no flag for a name, and a time of zero."""
    head = write_archive(tmp_path / "thing.tar.gz", members, programs=PROGRAMS, epoch=EPOCH).read_bytes()[:8]
    assert head[3] == 0
    assert head[4:8] == bytes(4)
