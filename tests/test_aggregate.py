"""An archive holds every line of its sources, once, in their order, and says so of itself."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import subprocess
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures_spool import Trace
from hypothesis import given
from hypothesis import strategies as st

from gateway import aggregate, disk
from gateway.aggregate import Summary, Unreadable, summarize

LINES = [b'{"n":%d,"text":"\xe6\x97\xa5"}\n' % number for number in range(5000)]


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    """Give three files of lines, the second of them empty."""
    paths = [tmp_path / name for name in ("1.jsonl", "2.jsonl", "3.json")]
    for path, lines in zip(paths, (LINES[:4000], [], LINES[4000:]), strict=True):
        path.write_bytes(b"".join(lines))
    return paths


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_an_archive_holds_the_lines(tmp_path: Path, sources: list[Path], level: int) -> None:
    """Any gzip reader finds the lines in their order, and the summary has their number and their hash."""
    summary = aggregate.aggregate(sources, tmp_path / "a.gz", level)
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"".join(LINES)
    assert summary == Summary(5000, hashlib.sha256(b"".join(LINES)).hexdigest())
    assert summarize(tmp_path / "a.gz") == summary


def test_an_archive_is_read_by_zcat(tmp_path: Path, sources: list[Path]) -> None:
    """A person reads an archive with the tool of every machine."""
    aggregate.aggregate(sources, tmp_path / "a.gz", 2)
    read = subprocess.run(["gzip", "-dc", str(tmp_path / "a.gz")], check=True, capture_output=True)
    assert read.stdout == b"".join(LINES)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, sources: list[Path]) -> None:
    """An archive made again, later and of files with other names and times, is the same to the last byte."""
    aggregate.aggregate(sources, tmp_path / "a.gz", 2)
    copies = [path.rename(tmp_path / f"other.{number}") for number, path in enumerate(sources)]
    for path in copies:
        os.utime(path, (1, 1))
    aggregate.aggregate(copies, tmp_path / "b.gz", 2)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    # The header carries no time and no name.
    assert (tmp_path / "a.gz").read_bytes()[:8] == b"\x1f\x8b\x08\0\0\0\0\0"


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b" ") + b"\n"), max_size=30), st.integers(1, 50))
def test_chunks_do_not_show(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], chunk: int) -> None:
    """However the sources are read, the archive holds their lines."""
    folder = tmp_path_factory.mktemp("chunks")
    (folder / "s").write_bytes(b"".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "COPY_CHUNK_BYTES", chunk)
        summary = aggregate.aggregate([folder / "s"], folder / "a.gz", 1)
        assert summarize(folder / "a.gz") == summary
    assert gzip.decompress((folder / "a.gz").read_bytes()) == b"".join(lines)
    assert summary.lines == len(lines)


def test_a_line_without_its_newline_stays_a_line(tmp_path: Path) -> None:
    """Where a source does not end in a newline, its last line and the next one's first are not made one."""
    for name, data in (("1", b"1\n2"), ("2", b"3\n")):
        (tmp_path / name).write_bytes(data)
    summary = aggregate.aggregate([tmp_path / "1", tmp_path / "2"], tmp_path / "a.gz", 1)
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"1\n2\n3\n"
    assert summary.lines == 3


def test_an_archive_is_synced(tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last write of an archive is followed by a sync."""
    trace = Trace(monkeypatch, tmp_path)
    aggregate.aggregate(sources, tmp_path / "a.gz", 1)
    assert trace.last("sync a.gz") > trace.last("write_all a.gz")


@pytest.mark.parametrize("step", ["write_all", "sync"])
def test_a_failure_leaves_no_archive(tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """On a disk that is full in the middle the archive is removed, and the sources stay."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(disk, step, full)
    with pytest.raises(OSError, match="No space"):
        aggregate.aggregate(sources, tmp_path / "a.gz", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl", "3.json"]


def test_a_missing_source_leaves_no_archive(tmp_path: Path, sources: list[Path]) -> None:
    """A source that is gone is an error and not a smaller archive."""
    sources[2].unlink()
    with pytest.raises(FileNotFoundError):
        aggregate.aggregate(sources, tmp_path / "a.gz", 1)
    assert not (tmp_path / "a.gz").exists()


def test_an_archive_replaces_nothing(tmp_path: Path, sources: list[Path]) -> None:
    """A name that is taken is refused, and what has it stays."""
    (tmp_path / "a.gz").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        aggregate.aggregate(sources, tmp_path / "a.gz", 1)
    assert (tmp_path / "a.gz").read_bytes() == b"other"


def spoiled(archive: bytes) -> Sequence[bytes]:
    """Give an archive in the ways that a crash, a bad disk or a person may leave it."""
    middle = len(archive) // 2
    return [
        b"",
        archive[:5],
        archive[:middle],
        archive[:-1],
        archive[:middle] + bytes(len(archive) - middle),
        archive[:-8] + bytes(8),
        archive + b"x",
        archive + archive,
        b"plain text\n",
        bytes(len(archive)),
    ]


@pytest.mark.parametrize("number", range(10))
def test_a_spoiled_archive_is_unreadable(tmp_path: Path, sources: list[Path], number: int) -> None:
    """An archive that is torn, zeroed, changed or followed by something is told apart from a whole one."""
    aggregate.aggregate(sources, tmp_path / "a.gz", 2)
    whole = (tmp_path / "a.gz").read_bytes()
    (tmp_path / "a.gz").write_bytes(spoiled(whole)[number])
    with pytest.raises(Unreadable, match="not a whole gzip file"):
        summarize(tmp_path / "a.gz")


def test_memory_does_not_grow_with_the_batch(tmp_path: Path) -> None:
    """A batch of 64 MiB, which compresses to almost nothing, is made and read again in a few MiB."""
    with (tmp_path / "s").open("wb") as file:
        for _ in range(64):
            file.write((b"x" * 1023 + b"\n") * 1024)
    tracemalloc.start()
    try:
        summary = aggregate.aggregate([tmp_path / "s"], tmp_path / "a.gz", 2)
        assert summarize(tmp_path / "a.gz") == summary
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert summary.lines == 64 * 1024
