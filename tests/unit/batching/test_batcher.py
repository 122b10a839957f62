"""A batch is cut at its time or at its size, and every failure on the way to a sealed archive is gone over again."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from gateway.batching import aggregate, batcher
from gateway.batching.aggregate import Summary
from gateway.batching.batcher import Batcher, Summaries
from gateway.core import clock, disk
from gateway.core.streams import CutRule
from gateway.spool import names
from gateway.spool.ballast import BALLAST
from gateway.stores.local import LocalStore
from testkit.spool import HOST, USAGE, WAIT_S, Bench, batch_and_deliver, open_bench, soon, tree, until

MANY = 1 << 30
HOURS = 3600.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


class Line:
    """A batcher of one stream on a real spool, whether it runs or is driven by hand."""

    def __init__(self, bench: Bench, *, interval_s: float = HOURS, max_batch_bytes: int = MANY, max_records: int = 0) -> None:
        self.bench = bench
        self.stream = replace(USAGE, cut=CutRule(interval_s, max_batch_bytes, max_records))
        self.sealed: list[str] = []
        self.on_cut: Callable[[], object] = bool
        self.was_sealed = asyncio.Event()
        self.summaries = Summaries()
        self.batcher = Batcher(
            bench.spool,
            self.stream,
            host=HOST,
            gzip_level=1,
            summaries=self.summaries,
            cut_segments=self._cut_segments,
            on_sealed=self._on_sealed,
            log=bench.log,
        )
        self._loop = asyncio.get_running_loop()
        bench.listeners[USAGE.name] = self._committed
        self.task: asyncio.Task[None] | None = None

    async def _cut_segments(self) -> None:
        self.on_cut()

    def _committed(self) -> None:
        self._loop.call_soon_threadsafe(self.batcher.wake)

    def _on_sealed(self) -> None:
        found = sorted(map(names.identity_of, disk.names(self.bench.spool.directories.uploading(USAGE))))
        if new := [batch for batch in found if batch not in self.sealed]:
            self.sealed += new
            self.was_sealed.set()

    def run(self) -> None:
        """Let the batcher cut batches by itself."""
        self.task = asyncio.create_task(self.batcher.run())

    async def everything(self) -> None:
        """Seal all that was committed."""
        async with asyncio.timeout(WAIT_S):
            await self.batcher.batch_everything()

    async def end(self) -> None:
        """Stop the batcher."""
        if self.task is not None:
            self.batcher.stop()
            async with asyncio.timeout(WAIT_S):
                await self.task

    def archives(self) -> list[bytes]:
        """Give what is in the sealed archives, sorted."""
        return sorted(gzip.decompress(path.read_bytes()) for path in self.bench.spool.directories.uploading(USAGE).iterdir())


Open = Callable[..., Line]


@pytest.fixture
async def start(bench: Bench) -> AsyncIterator[Open]:
    """Give what makes a batcher, and stop it with the test."""
    made: list[Line] = []

    def start(*, interval_s: float = HOURS, max_batch_bytes: int = MANY, max_records: int = 0) -> Line:
        made.append(Line(bench, interval_s=interval_s, max_batch_bytes=max_batch_bytes, max_records=max_records))
        return made[-1]

    yield start
    for line in made:
        await line.end()


def failing(times: int, real: Callable[..., object], number: int = errno.EIO) -> Callable[..., object]:
    """Give a function that fails so many times, then does what the real one does."""
    left = [times]

    def call(*arguments: object) -> object:
        if left[0]:
            left[0] -= 1
            raise OSError(number, os.strerror(number))
        return real(*arguments)

    return call


# --- what is sealed ----------------------------------------------------------------------------------------------


async def test_everything_is_sealed_by_hours(start: Open, bench: Bench) -> None:
    """All that was committed is sealed, an archive for each hour, and nothing else is left."""
    line = start()
    for number in range(3):
        bench.report(b"%d" % number)
    bench.clock.now_ns += clock.HOUR_NS
    bench.report(b"3")
    await line.everything()
    assert line.archives() == [b"0\n1\n2\n", b"3\n"]
    assert len(tree(bench.spool.root)) == 2
    assert len(line.sealed) == 2


async def test_what_stands_behind_an_unsettled_commit_is_waited_for(
    start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be claimed yet, because an older commit is being synced, is not looked for again and again."""
    looks: list[object] = []
    claim: Callable[..., object] = bench.spool.claim

    def counted(*arguments: object) -> object:
        looks.append(arguments)
        return claim(*arguments)

    monkeypatch.setattr(bench.spool, "claim", counted)
    in_doubt, instant = bench.spool._in_doubt[USAGE.name], bench.spool.timestamps.next()
    in_doubt.begin(instant)
    bench.reports([b"1" * 2000])
    line = start(max_batch_bytes=1000)
    line.run()
    await until(lambda: looks != [])
    await asyncio.sleep(0.2)
    assert len(looks) == 1
    in_doubt.end(instant)
    bench.spool.committed(USAGE)
    await soon(line.was_sealed)


async def test_batches_are_bounded(start: Open, bench: Bench) -> None:
    """What is more than a batch may hold becomes several, each of the oldest."""
    line = start(max_batch_bytes=4)
    for number in range(5):
        bench.report(b"%d" % number)
    await line.everything()
    assert line.archives() == [b"0\n1\n", b"2\n3\n", b"4\n"]


async def test_the_writer_cuts_before_the_batch_is_made(start: Open, bench: Bench) -> None:
    """What was acknowledged before the tick is in its batch: the writer is asked to end its segment first."""
    line = start()
    line.on_cut = lambda: bench.report(b"was open")
    await line.everything()
    assert line.archives() == [b"was open\n"]


async def test_the_summary_is_kept_for_the_delivery(start: Open, bench: Bench) -> None:
    """What is known of an archive without reading it is what reading it would tell."""
    line = start()
    bench.report(b"1")
    await line.everything()
    (batch,) = line.sealed
    (sealed,) = bench.spool.directories.uploading(USAGE).iterdir()
    assert line.summaries.get(batch) == aggregate.summarize(sealed)
    assert names.identity_of(sealed.name) == batch
    line.summaries.forget(batch)
    assert line.summaries.get(batch) is None


def test_summaries_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches wait for a store that is away, only so many summaries are kept, the newest."""
    monkeypatch.setattr(batcher, "KEPT_SUMMARIES", 4)
    summaries = Summaries()
    for number in range(10):
        summaries.keep(str(number), Summary(number, ""))
        kept = [summary.lines for at in range(10) if (summary := summaries.get(str(at)))]
        assert len(kept) <= 4
        assert kept == list(range(number + 1))[-len(kept) :]


# --- when a batch is cut -----------------------------------------------------------------------------------------


async def test_a_batch_is_cut_at_its_time(start: Open, bench: Bench) -> None:
    """Once an interval, whatever is there is sealed, be it ever so little."""
    line = start(interval_s=0.02)
    bench.report(b"1")
    line.run()
    await soon(line.was_sealed)
    line.was_sealed.clear()
    bench.report(b"2")
    await soon(line.was_sealed)
    assert line.archives() == [b"1\n", b"2\n"]


async def test_a_batch_is_cut_at_its_size(start: Open, bench: Bench) -> None:
    """As soon as there is enough for a batch it is cut, hours before its time; what is less waits."""
    line = start(max_batch_bytes=10)
    line.run()
    bench.report(b"1234")
    for _ in range(20):
        await asyncio.to_thread(int)
    assert line.sealed == []
    bench.report(b"6789")
    await soon(line.was_sealed)
    assert line.archives() == [b"1234\n6789\n"]


async def test_a_batcher_stops(start: Open, bench: Bench) -> None:
    """A batcher that waits for its time ends when it is told to, and leaves what waits to the last round."""
    line = start()
    bench.report(b"1")
    line.run()
    for _ in range(10):
        await asyncio.sleep(0)
    await line.end()
    assert line.sealed == []
    await line.everything()
    assert line.archives() == [b"1\n"]


# --- what a crash left -------------------------------------------------------------------------------------------


async def test_a_claimed_batch_is_finished_at_the_start(start: Open, bench: Bench) -> None:
    """A batch that a crash left claimed is sealed under the same id, before its time."""
    bench.report(b"1")
    claimed = bench.spool.claim(USAGE, MANY, HOST)
    assert claimed is not None
    line = start()
    line.run()
    await soon(line.was_sealed)
    assert line.sealed == [str(claimed.batch)]
    assert line.archives() == [b"1\n"]
    assert not claimed.directory.exists()


async def test_an_aggregation_that_failed_is_begun_again(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails during the aggregation leaves the batch claimed, and the next round seals it whole."""
    line = start()
    bench.report(b"1")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", failing(1, disk.write_all))
        with pytest.raises(OSError, match="Input"):
            await line.everything()
    (claimed,) = bench.spool.directories.claimed(USAGE)
    assert list(bench.spool.directories.tmp.iterdir()) == []
    bench.report(b"2")
    await line.everything()
    assert line.archives() == [b"1\n", b"2\n"]
    assert str(claimed.batch) in line.sealed


# --- a disk without room for an archive ---------------------------------------------------------------------------


def sealed(bench: Bench) -> dict[str, bytes]:
    """Give the sealed files of any kind by what their names end in, with their lines."""
    found: dict[str, bytes] = {}
    for path in bench.spool.directories.uploading(USAGE).iterdir():
        data = path.read_bytes()
        found[path.name.partition(".1.")[2] + str(len(found))] = gzip.decompress(data) if path.name.endswith(".gz") else data
    return found


async def test_a_batch_is_no_larger_than_the_room_for_its_archive(
    start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of much that waits so much is made an object of as fits the disk once more, beside what another stream does."""
    for number in range(6):
        bench.report(b"%d" % number * 10_000)
    room = 2 * (25_000 + batcher.ARCHIVE_OVERHEAD_BYTES)
    monkeypatch.setattr(disk, "file_system", lambda _: disk.FileSystem(room))
    line = start()
    await line.everything()
    assert [len(lines.splitlines()) for lines in line.archives()] == [2, 2, 2]


async def test_what_does_not_fit_once_more_is_sealed_as_it_is(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full to the last byte lets every file go, each as an object of its own; nothing is counted twice."""
    for number in range(3):
        bench.report(b"%d" % number * 10_000)
    before = bench.spool.accounting.waiting[USAGE.name].files, bench.spool.accounting.waiting[USAGE.name].bytes
    monkeypatch.setattr(disk, "file_system", lambda _: disk.FileSystem(0))
    line = start()
    await line.everything()
    assert sorted(sealed(bench).values()) == [b"%d" % number * 10_000 + b"\n" for number in range(3)]
    found = disk.names(bench.spool.directories.uploading(USAGE))
    numbers = [names.parse_sealed(name) for name in found if not names.is_packed(name)]
    assert sorted(parsed[1] for parsed in numbers if parsed) == [1, 2, 3]
    assert list(bench.spool.directories.aggregation(USAGE).iterdir()) == []
    assert (bench.spool.accounting.waiting[USAGE.name].files, bench.spool.accounting.waiting[USAGE.name].bytes) == before
    assert bench.spool.accounting.claimable[USAGE.name].files == 0


async def test_a_round_that_finds_no_room_is_gone_once_more(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even a rename is granted the ballast gives its room, at once and without a line of a failure."""
    bench.spool.ballast.lay()
    bench.report(b"1")
    place = disk.place

    def not_granted(source: Path, target: Path) -> None:
        if (bench.spool.root / BALLAST).exists():
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        place(source, target)

    monkeypatch.setattr(disk, "place", not_granted)
    line = start(interval_s=0.01)
    line.run()
    await soon(line.was_sealed)
    assert line.archives() == [b"1\n"]
    await line.end()
    assert [told["event"] for told in bench.told() if told["level"] != "info"] == ["ballast given up"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
async def test_a_batch_that_was_claimed_before_the_disk_was_full_goes_too(
    code: int, start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier run claimed whole is let go file by file, whether the room is known to be gone or found to be."""
    line = start()
    for number in range(3):
        bench.report(b"%d" % number)
    assert bench.spool.claim(USAGE, MANY, HOST) is not None
    monkeypatch.setattr(disk, "write_all", failing(1000, disk.write_all, code))
    await line.everything()
    assert sorted(sealed(bench).values()) == [b"0\n", b"1\n", b"2\n"]
    assert list(bench.spool.directories.aggregation(USAGE).iterdir()) == []
    assert list(bench.spool.directories.tmp.iterdir()) == []


async def test_a_disk_without_room_for_a_name_lets_go(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the directory of a batch can be made, its first file is renamed to where it is sent from."""
    bench.report(b"1")
    monkeypatch.setattr(disk, "make_directory", failing(1000, disk.make_directory, errno.ENOSPC))
    line = start()
    await line.everything()
    assert list(sealed(bench).values()) == [b"1\n"]


async def test_what_is_sealed_as_it_is_and_cannot_be_synced_is_sent_all_the_same(
    start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A move whose sync fails is known to the delivery, which makes it durable before it sends the file."""
    path = bench.report(b"1")
    real, failures = disk.sync_directory, [2]

    def failing_twice(directory: Path) -> None:
        if directory == path.parent and not path.exists() and failures[0]:
            failures[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        real(directory)

    told: list[str] = []
    monkeypatch.setattr(disk, "sync_directory", failing_twice)
    monkeypatch.setattr(disk, "make_directory", failing(1000, disk.make_directory, errno.ENOSPC))
    line = start()
    line.batcher._on_sealed = lambda: told.append("sealed")
    with pytest.raises(OSError, match="Input"):
        await line.everything()
    assert told == ["sealed"]
    with pytest.raises(OSError, match="Input"):
        bench.spool.deliverable(USAGE, set())
    assert len(bench.spool.deliverable(USAGE, set())) == 1


async def test_what_is_sealed_as_it_is_arrives_packed(
    start: Open, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the store it is an archive like any other, with the number and the hash of its lines."""
    bench.reports([b"%d" % number for number in range(1000)])
    line = start()
    with monkeypatch.context() as patch:
        patch.setattr(disk, "file_system", lambda _: disk.FileSystem(0))
        await line.everything()
    batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
    assert tree(bench.spool.root) == {}
    (path,) = (path for path in (tmp_path / "objects" / USAGE.bucket).rglob("*") if path.is_file())
    assert path.name.endswith(".jsonl.gz")
    lines = b"".join(b"%d\n" % number for number in range(1000))
    assert gzip.decompress(path.read_bytes()) == lines
    metadata = next((tmp_path / "objects" / ".metadata").rglob("*.json"))
    found = orjson.loads(metadata.read_bytes())
    assert (found["lines"], found["sha256"]) == ("1000", hashlib.sha256(lines).hexdigest())


async def test_a_batch_that_is_stuck_holds_up_no_other(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a claimed batch cannot be read, the others are sealed, the error is told, and the batch stays."""
    bench.report(b"stuck")
    claimed = bench.spool.claim(USAGE, MANY, HOST)
    assert claimed is not None
    (source,) = claimed.sources()
    bench.report(b"2")
    line = start()
    opened = disk.open_file

    def bad_sector(path: Path) -> io.FileIO:
        if path == source:
            raise OSError(errno.EIO, "bad sector")
        return opened(path)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "open_file", bad_sector)
        with pytest.raises(OSError, match="bad sector"):
            await line.everything()
    assert line.archives() == [b"2\n"]
    await line.everything()
    assert line.archives() == [b"2\n", b"stuck\n"]


@pytest.mark.parametrize("step", ["place", "sync_directory", "remove", "remove_directory"])
async def test_a_seal_that_failed_is_finished(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Wherever a seal fails, the next round has one whole archive, no sources, and no draft that fills the disk."""
    line = start()
    bench.report(b"1")
    claimed = bench.spool.claim(USAGE, MANY, HOST)
    with monkeypatch.context() as patch:
        # The settling of what was claimed is not what is to fail.
        patch.setattr(bench.spool, "settle", lambda _: None)
        patch.setattr(disk, step, failing(1, getattr(disk, step)))
        with pytest.raises(OSError, match="Input"):
            await line.everything()
    assert list(bench.spool.directories.tmp.iterdir()) == []
    await line.everything()
    assert claimed is not None
    assert line.archives() == [b"1\n"]
    assert len(tree(bench.spool.root)) == 1
    assert str(claimed.batch) in line.sealed


async def test_a_failure_is_told_and_tried_again_soon(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed round the next one comes long before the interval is over, and its success is told."""
    monkeypatch.setattr(batcher, "FAILURE_PAUSE_S", 0.01)
    monkeypatch.setattr(disk, "write_all", failing(3, disk.write_all))
    line = start(max_batch_bytes=2)
    draft = bench.spool.new_tmp()
    draft.write_bytes(b"1\n")
    troubles: set[str | None] = set()
    write = disk.write_all

    def noting(descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
        troubles.add(line.batcher.trouble)
        return write(descriptor, buffers)

    monkeypatch.setattr(disk, "write_all", noting)
    line.run()
    bench.spool.commit_report(USAGE, draft, bench.spool.timestamps.next(), "u")
    await soon(line.was_sealed)
    assert line.archives() == [b"1\n"]
    await line.end()
    assert troubles == {None, "[Errno 5] Input/output error"}
    assert line.batcher.trouble is None
    assert [told["event"] for told in bench.told() if told["event"].startswith("aggregation")] == [
        "aggregation failed",
        "aggregation recovered",
    ]


async def test_a_failure_does_not_keep_the_machine_busy(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is enough for a batch and the disk refuses to claim it, it is asked again after a pause, not at once."""
    asked = 0
    refused_once = asyncio.Event()
    loop = asyncio.get_running_loop()

    def refuse(*_: object) -> None:
        nonlocal asked
        asked += 1
        loop.call_soon_threadsafe(refused_once.set)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    line = start(max_batch_bytes=2)
    bench.report(b"1")
    with monkeypatch.context() as patch:
        patch.setattr(disk, "make_directory", refuse)
        line.run()
        await soon(refused_once)
        refused_once.clear()
        # Far less than the pause, and long enough for hundreds of rounds without one.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await refused_once.wait()
    assert asked == 1


async def test_a_defect_does_not_end_the_aggregation(start: Open, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error that nobody foresaw the batcher goes on."""
    real = aggregate.aggregate
    calls: list[int] = []

    def defect(sources: list[Path], archive: Path, level: int) -> Summary:
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError
        return real(sources, archive, level)

    monkeypatch.setattr(batcher, "FAILURE_PAUSE_S", 0.01)
    monkeypatch.setattr(aggregate, "aggregate", defect)
    line = start(max_batch_bytes=2)
    line.run()
    bench.report(b"1")
    await soon(line.was_sealed)
    assert line.archives() == [b"1\n"]
    await line.end()
    assert len(bench.told("defect")) == 1


# --- a bound of records -------------------------------------------------------------------------------------------


async def test_enough_records_make_a_batch(bench: Bench, start: Open) -> None:
    """With a bound of records a batch is cut as soon as so many wait, whatever their bytes and the interval."""
    line = start(max_records=10)
    line.run()
    bench.reports([b"%d" % number for number in range(6)], line.stream)
    assert not line.sealed
    bench.reports([b"%d" % number for number in range(6)], line.stream)
    await soon(line.was_sealed)
    assert bench.spool.accounting.claimable["usage"].records == 6


async def test_a_batch_has_no_more_records_than_its_bound(bench: Bench, start: Open) -> None:
    """A claim takes whole files as long as they fit the bound, and one at least; what is counted stays true."""
    line = start(max_records=10)
    for count in (4, 5, 3, 25, 1):
        bench.reports([b"%d" % number for number in range(count)], line.stream)
    assert bench.spool.accounting.claimable["usage"].records == 38
    await line.batcher.batch_everything()
    summaries = [line.summaries.get(batch) for batch in sorted(line.sealed)]
    assert sorted(summary.lines for summary in summaries if summary) == [1, 3, 9, 25]
    assert bench.spool.accounting.claimable["usage"].records == 0
    assert bench.spool.accounting.claimable["usage"].files == 0


def test_records_are_counted_anew(tmp_path: Path) -> None:
    """A start, and a recount, find how many records wait."""
    bounded = replace(USAGE, cut=CutRule(HOURS, MANY, 10))
    with open_bench(tmp_path, streams=(bounded,)) as bench:
        bench.reports([b"1", b"2", b"3"], bounded)
    with open_bench(tmp_path, streams=(bounded,)) as bench:
        claimable = bench.spool.accounting.claimable["usage"]
        assert (claimable.files, claimable.records) == (1, 3)
        claimable.add(0, 0, 5)
        assert bench.spool.accounting.recount()
        assert claimable.records == 3
