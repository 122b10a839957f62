"""An archive holds every line of its sources, once, in their order, and says so of itself."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import random
import subprocess
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from gateway.batching import aggregate
from gateway.batching.aggregate import Summary, UnreadableArchive, summarize
from gateway.core import disk
from testkit.spool import Trace

# As on a small machine, on a larger one, and more than a gateway ever uses.
THREADS = (1, 2, 5)
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


@given(
    st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\n", b" ") + b"\n"), max_size=30),
    st.integers(1, 50),
    st.integers(1, 50),
)
def test_chunks_do_not_show(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], chunk: int, piece: int) -> None:
    """However the sources are read, and wherever a piece ends, the archive holds their lines."""
    folder = tmp_path_factory.mktemp("chunks")
    (folder / "s").write_bytes(b"".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "COPY_CHUNK_BYTES", chunk)
        patch.setattr(aggregate, "PIECE_BYTES", piece)
        summary = aggregate.aggregate([folder / "s"], folder / "a.gz", 1)
        assert summarize(folder / "a.gz") == summary
    assert gzip.decompress((folder / "a.gz").read_bytes()) == b"".join(lines)
    assert summary.lines == len(lines)


@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 100))
def test_the_number_of_threads_does_not_show(tmp_path_factory: pytest.TempPathFactory, data: list[bytes], piece: int) -> None:
    """Any files, empty ones and some that do not end in a newline, give the same archive on every machine."""
    folder = tmp_path_factory.mktemp("threads")
    for number, each in enumerate(data):
        (folder / str(number)).write_bytes(each)
    lines = b"".join(each + (b"" if each.endswith(b"\n") or not each else b"\n") for each in data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "COPY_CHUNK_BYTES", piece)
        patch.setattr(aggregate, "PIECE_BYTES", piece)
        for compressors in THREADS:
            archive = folder / f"{compressors}.gz"
            summary = aggregate.aggregate([folder / str(number) for number in range(len(data))], archive, 2, compressors)
            assert archive.read_bytes() == (folder / "1.gz").read_bytes()
            assert summary == Summary(lines.count(b"\n"), hashlib.sha256(lines).hexdigest()) == summarize(archive)
    assert gzip.decompress((folder / "1.gz").read_bytes()) == lines


@pytest.mark.parametrize("compressors", THREADS)
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_pieces_of_ordinary_size(tmp_path: Path, compressors: int, more: int) -> None:
    """Files around the size of a piece, and a line that is longer than one, are read back by `gzip` as they were."""
    chance = random.Random(1)
    data = b"".join(b'{"n":"%s"}\n' % chance.randbytes(40).hex().encode() for _ in range(40_000))
    (tmp_path / "1").write_bytes(data[: aggregate.PIECE_BYTES + more])
    (tmp_path / "2").write_bytes(b"1\n")
    (tmp_path / "3").write_bytes(chance.randbytes(2 * aggregate.PIECE_BYTES + more).replace(b"\n", b"") + b"\n")
    summary = aggregate.aggregate([tmp_path / "1", tmp_path / "2", tmp_path / "3"], tmp_path / "a.gz", 2, compressors)
    read = subprocess.run(["gzip", "-dc", str(tmp_path / "a.gz")], check=True, capture_output=True).stdout
    # A line that was cut off gets its newline.
    assert read.replace(b"\n", b"") == b"".join((tmp_path / name).read_bytes() for name in "123").replace(b"\n", b"")
    assert summary == Summary(read.count(b"\n"), hashlib.sha256(read).hexdigest()) == summarize(tmp_path / "a.gz")


def test_many_small_files_share_a_piece(tmp_path: Path) -> None:
    """Reports of files of their own compress like lines of one file, which know each other."""
    paths = [tmp_path / str(number) for number in range(500)]
    for path, line in zip(paths, LINES, strict=False):
        path.write_bytes(line)
    (tmp_path / "all").write_bytes(b"".join(LINES[:500]))
    aggregate.aggregate(paths, tmp_path / "a.gz", 2)
    aggregate.aggregate([tmp_path / "all"], tmp_path / "b.gz", 2)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_an_archive_of_one_stream_is_read(tmp_path: Path) -> None:
    """Archives as they were made before there were pieces may still wait in a spool."""
    (tmp_path / "a.gz").write_bytes(isal_zlib.compress(b"".join(LINES), 2, aggregate.GZIP_WINDOW_BITS))
    assert summarize(tmp_path / "a.gz") == Summary(5000, hashlib.sha256(b"".join(LINES)).hexdigest())


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


@pytest.mark.parametrize("compressors", THREADS)
@pytest.mark.parametrize("at", [0, 1, 5, -1])
def test_a_disk_that_is_full_in_the_middle_leaves_nothing(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch, compressors: int, at: int
) -> None:
    """A write that fails, the first, a later or the last, leaves no archive, no thread and no open file."""
    monkeypatch.setattr(aggregate, "PIECE_BYTES", 5000)
    monkeypatch.setattr(disk, "COPY_CHUNK_BYTES", 5000)
    write_all, calls = disk.write_all, 0

    def counted(descriptor: int, buffers: Sequence[bytes]) -> int:
        nonlocal calls
        calls += 1
        if calls == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_all(descriptor, buffers)

    monkeypatch.setattr(disk, "write_all", counted)
    failing = -1
    aggregate.aggregate(sources, tmp_path / "whole.gz", 1, compressors)
    failing = calls if at == -1 else at + 1
    assert failing < 30
    threads, descriptors, calls = threading.enumerate(), os.listdir("/proc/self/fd"), 0
    with pytest.raises(OSError, match="No space"):
        aggregate.aggregate(sources, tmp_path / "a.gz", 1, compressors)
    assert calls == failing
    assert not (tmp_path / "a.gz").exists()
    assert threading.enumerate() == threads
    assert os.listdir("/proc/self/fd") == descriptors


@pytest.mark.parametrize("compressors", THREADS)
def test_a_bad_level_leaves_nothing(tmp_path: Path, sources: list[Path], compressors: int) -> None:
    """What goes wrong in a thread is raised, and the threads end."""
    threads = threading.enumerate()
    with pytest.raises(ValueError, match="level"):
        aggregate.aggregate(sources, tmp_path / "a.gz", 99, compressors)
    assert not (tmp_path / "a.gz").exists()
    assert threading.enumerate() == threads


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
    with pytest.raises(UnreadableArchive, match="not a whole gzip file"):
        summarize(tmp_path / "a.gz")


@pytest.mark.parametrize(("compressors", "most_mib"), [(1, 7), (3, 16)])
@pytest.mark.parametrize("kind", ["nothing", "noise"])
def test_memory_does_not_grow_with_the_batch(tmp_path: Path, compressors: int, most_mib: int, kind: str) -> None:
    """A batch of 200 MiB, of what compresses to nothing or not at all, is made and read again in a few MiB a thread."""
    (tmp_path / "s").write_bytes((b"x" * 1023 + b"\n") * 20 * 1024 if kind == "nothing" else noise(20))
    tracemalloc.start()
    try:
        summary = aggregate.aggregate([tmp_path / "s"] * 10, tmp_path / "a.gz", 2, compressors)
        assert summarize(tmp_path / "a.gz") == summary
        assert tracemalloc.get_traced_memory()[1] < most_mib << 20
    finally:
        tracemalloc.stop()
    assert summary.lines == 200 * 1024


def noise(mib: int) -> bytes:
    """Give lines of 1 KiB that nothing makes smaller."""
    chance = random.Random(1)
    return b"".join(chance.randbytes(1023).replace(b"\n", b"x") + b"\n" for _ in range(mib * 1024))


def test_there_is_a_compressor_for_each_core_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """One core is left to what reads and hashes, and a large machine is not filled with threads that would wait for it."""
    for cores, compressors in ((1, 1), (2, 1), (3, 2), (4, 3), (64, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert aggregate.usual_compressors() == compressors


def test_the_cores_are_those_that_the_process_may_use() -> None:
    """A gateway that was kept to one core, as by `taskset` or a container, does not count the others."""
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert aggregate.usual_compressors() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_requests_come_first(tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The threads of an aggregation stand behind the others of the process, and the calling one stays where it is."""
    own, seen = os.getpriority(os.PRIO_PROCESS, 0), set()
    update = hashlib.sha256

    class Watched:
        def __init__(self) -> None:
            self._hash = update()

        def update(self, data: bytes) -> None:
            seen.add(os.getpriority(os.PRIO_PROCESS, 0))
            self._hash.update(data)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    monkeypatch.setattr(hashlib, "sha256", Watched)
    aggregate.aggregate(sources, tmp_path / "a.gz", 1)
    assert seen == {min(19, own + aggregate.NICENESS)}
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_a_system_that_keeps_its_priorities_is_no_obstacle(
    tmp_path: Path, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a filter of system calls refuses, the archive is made all the same."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    assert aggregate.aggregate(sources, tmp_path / "a.gz", 1).lines == 5000
