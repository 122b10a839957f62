"""A `cache_dir` belongs to one gateway at a time, of the version that made it or a later one."""

from __future__ import annotations

import errno
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core import disk
from gateway.core.errors import StartError
from gateway.spool import directories, names
from gateway.spool.directories import FORMAT_VERSION, oldest
from testkit.spool import START_NS, USAGE, Bench, Trace, open_bench, tree


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


def test_a_second_gateway_is_refused(tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One cache_dir has one gateway: a second one is told who has it, and can have it when that one is done."""
    monkeypatch.setattr(disk, "_ORPHANS_S", 0.05)
    with pytest.raises(StartError, match=f"pid {os.getpid()}"), open_bench(tmp_path):
        pass
    bench.spool.lock.release()
    with open_bench(tmp_path):
        pass


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 999])
def test_a_newer_format_is_refused(tmp_path: Path, version: int) -> None:
    """A spool of a newer version is left as it is, and its lock is not kept."""
    with open_bench(tmp_path) as bench:
        bench.report(b"1")
    (tmp_path / "spool" / "FORMAT").write_text(f"{version}\n")
    before = tree(tmp_path / "spool")
    for _ in range(2):
        with pytest.raises(StartError, match=f"format {version}"), open_bench(tmp_path):
            pass
    assert tree(tmp_path / "spool") == before


@pytest.mark.parametrize("text", [b"", b"one\n", b"-1\n", b"\xff\xfe", b"1.0\n"])
def test_a_format_that_is_no_number_is_as_good_as_lost(tmp_path: Path, text: bytes) -> None:
    """The names in the spool say whose they are, see `test_adoption.py`, and FORMAT is written anew."""
    with open_bench(tmp_path):
        pass
    (tmp_path / "spool" / "FORMAT").write_bytes(text)
    with open_bench(tmp_path) as bench:
        assert bench.spool.directories.format_version() == FORMAT_VERSION


def test_the_own_format_is_taken(tmp_path: Path) -> None:
    """A spool of this version is opened again and again, and FORMAT is written last of the layout."""
    for _ in range(3):
        with open_bench(tmp_path) as bench:
            assert bench.spool.directories.format_version() == FORMAT_VERSION


def test_format_is_written_after_the_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds FORMAT may rely on every directory, durably."""
    trace = Trace(monkeypatch, tmp_path / "spool")
    with open_bench(tmp_path):
        placed = trace.first("place tmp/")
        assert trace.last("make_directory") < placed
        assert trace.last("sync tmp/") < placed < trace.last("sync_directory .")


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """Where the cache_dir cannot be made, the error names it and says what to do."""
    (tmp_path / "spool").write_bytes(b"a file")
    with pytest.raises(StartError, match="cache_dir"), open_bench(tmp_path):
        pass


def test_the_oldest_are_picked_in_bounded_memory(bench: Bench) -> None:
    """Of 50,000 waiting files the oldest 10,000 are picked, in memory for these and not for all."""
    directory = bench.spool.directories.of(USAGE)
    for number in range(50_000):
        # In no order that a directory could keep.
        os.mknod(directory / f"{START_NS + number * 7919 % 50_000}.7.jsonl", 0o600)
    tracemalloc.start()
    try:
        picked = oldest(directory, (names.CUT_SEGMENT,), lambda _: False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert picked == [f"{START_NS + number}.7.jsonl" for number in range(directories.PICKED_FILES)]
    # 10,000 names with their place in the heap; all of the names alone would take 4 MB.
    assert peak < 2_500_000
    shutil.rmtree(directory)


@pytest.mark.parametrize("fault", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_syncs_no_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    """As CIFS: the advice is another file system, and not other permissions."""

    def refuse(path: Path) -> None:
        raise OSError(fault, os.strerror(fault), str(path))

    (tmp_path / "spool").mkdir()
    monkeypatch.setattr(disk, "sync_directory", refuse)
    with pytest.raises(StartError, match=r"does not make names durable .* as CIFS is one"), open_bench(tmp_path):
        pass
