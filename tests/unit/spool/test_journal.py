"""A report is acknowledged once it is synced, many by one sync, and one answered with an error never appears."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core import clock, disk
from gateway.core.errors import GatewayError, Overloaded, SpoolBroken, SpoolFull, Stopping, Unanswerable
from gateway.spool import journal, names, owner
from gateway.spool.directories import FORMAT_VERSION
from gateway.spool.journal import Journal, SegmentLimits
from testkit.spool import HOUR, NEXT_HOUR, USAGE, WAIT_S, Bench, Trace, open_bench, soon, until

HUGE = 1 << 30
MINUTE_NS = 60 * clock.NANOSECONDS


class Desk:
    """A journal on a real spool."""

    def __init__(self, bench: Bench, made: Journal) -> None:
        self.bench = bench
        self.journal = made

    def send(self, line: bytes) -> asyncio.Future[None]:
        """Begin to commit a line, and give what will say how that ended."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: GatewayError | None) -> None:
            assert not future.done(), "answered twice"
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.journal.append(self.bench.spool.timestamps.next(), line + b"\n", done)
        return future

    async def commit(self, *lines: bytes) -> None:
        """Commit lines, one round each."""
        for line in lines:
            async with asyncio.timeout(WAIT_S):
                await self.send(line)

    def files(self) -> dict[str, bytes]:
        """Give every segment with its bytes, by the name's ending behind the timestamp."""
        while True:
            try:
                found = sorted(path for path in self.bench.spool.directories.of(USAGE).iterdir() if path.is_file())
                return {path.name: path.read_bytes() for path in found}
            except FileNotFoundError:
                # The writer renamed one between the two looks.
                continue

    def lines(self) -> list[bytes]:
        """Give every line that a reader finds in the stream's segments, in their order."""
        return b"".join(self.files().values()).splitlines()

    def open_segment(self) -> Path:
        """Give the segment that is being written."""
        (path,) = self.bench.spool.directories.of(USAGE).glob("*.open")
        return path


Start = Callable[..., Desk]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


@pytest.fixture
async def start(bench: Bench) -> AsyncIterator[Start]:
    """Give what starts a journal, and end it with the test."""
    made: list[Journal] = []

    def start(
        *,
        max_bytes: int = HUGE,
        max_age_s: float = 3600.0,
        pending: int = HUGE,
        max_records: int = 0,
        monotonic: Callable[[], float] | None = None,
    ) -> Desk:
        clock = {} if monotonic is None else {"monotonic": monotonic}
        limits = SegmentLimits(max_bytes, max_age_s, pending, max_records)
        made.append(Journal(bench.spool, USAGE, limits, log=bench.log, metrics=bench.metrics, **clock))
        made[-1].start()
        return Desk(bench, made[-1])

    yield start
    for one in made:
        async with asyncio.timeout(WAIT_S):
            await one.close()


class Fault:
    """A function of `core/disk.py` that fails while it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str, number: int = errno.EIO, times: int = 1 << 30) -> None:
        self.left = times
        self.calls = 0
        self._number = number
        self._real = getattr(disk, name)
        patch.setattr(disk, name, self)

    def __call__(self, *arguments: object) -> object:
        """Fail, or do what the real function does."""
        self.calls += 1
        if self.left > 0:
            self.left -= 1
            raise OSError(self._number, os.strerror(self._number))
        return self._real(*arguments)

    def mend(self) -> None:
        """Fail no more."""
        self.left = 0


class SlowSync:
    """A sync that waits, each time it is called, until it is let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._gate = threading.Event()
        self._sync = disk.sync
        patch.setattr(disk, "sync", self)

    def __call__(self, descriptor: int) -> None:
        """Say that a sync has begun, and wait."""
        self.calls += 1
        self._loop.call_soon_threadsafe(self._begun.set)
        assert self._gate.wait(WAIT_S)
        self._sync(descriptor)

    async def begun(self) -> None:
        """Wait until a sync is running."""
        await soon(self._begun)

    def go(self) -> None:
        """Let this sync and all later ones run."""
        self._gate.set()


async def all_of(futures: Sequence[asyncio.Future[None]]) -> list[BaseException | None]:
    """Wait for all of them, and give how each ended."""
    async with asyncio.timeout(WAIT_S):
        return await asyncio.gather(*futures, return_exceptions=True)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


# --- the way of a line -------------------------------------------------------------------------------------------


async def test_lines_stand_in_their_order(start: Start) -> None:
    """What was committed stands in the segment in the order in which it came, byte for byte."""
    desk = start()
    lines = [b'{"n": %d}' % number for number in range(50)]
    assert await all_of([desk.send(line) for line in lines]) == [None] * 50
    assert desk.lines() == lines


async def test_a_line_is_synced_before_it_is_acknowledged(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directory, write and sync come before the acknowledgement, in this order."""
    trace = Trace(monkeypatch, bench.spool.root)
    desk = start()
    sent = desk.send(b"1")
    sent.add_done_callback(lambda _: trace.note("done"))
    await all_of([sent])
    name = f"usage/{desk.open_segment().name}"
    assert trace.steps == [f"create {name}", "sync_directory usage", f"write_all {name}", f"sync {name}", "done"]


async def test_every_round_is_synced_before_it_is_acknowledged(
    start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line of a later round is acknowledged on the strength of an earlier sync."""
    trace = Trace(monkeypatch, bench.spool.root)
    desk = start()
    for number in range(5):
        sent = desk.send(b"%d" % number)
        sent.add_done_callback(lambda _: trace.note("done"))
        await all_of([sent])
    rounds = [step.split()[0] for step in trace.steps[2:]]
    assert rounds == ["write_all", "sync", "done"] * 5


async def test_one_sync_serves_all_that_came_meanwhile(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the lines that come while a sync is running are made durable by one further sync."""
    slow = SlowSync(monkeypatch)
    desk = start()
    first = desk.send(b"first")
    await slow.begun()
    others = [desk.send(b"%d" % number) for number in range(3000)]
    assert not first.done()
    slow.go()
    assert await all_of([first, *others]) == [None] * 3001
    assert slow.calls == 2
    assert desk.lines() == [b"first", *(b"%d" % number for number in range(3000))]


async def test_what_comes_turn_after_turn_is_one_round(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as more comes with each turn of the loop a round waits for it; then it waits no more."""
    monkeypatch.setattr(journal, "GATHER_S", WAIT_S)
    desk = start()
    sent = []
    for number in range(50):
        sent.append(desk.send(b"%d" % number))
        # The writer could run.
        time.sleep(0.0005)  # noqa: ASYNC251 (it is the loop that has to be late)
        await asyncio.sleep(0)
    assert await all_of(sent) == [None] * 50
    assert bench.metric("sync_duration_seconds_count", stream="usage") == 1


async def test_a_round_does_not_wait_for_ever(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long more comes, the first one is synced after a moment."""
    monkeypatch.setattr(journal, "GATHER_S", 0.001)
    desk = start()
    sent = [desk.send(b"first")]
    async with asyncio.timeout(WAIT_S):
        while not sent[0].done():
            sent.append(desk.send(b"more"))
            await asyncio.sleep(0)
    assert await all_of(sent) == [None] * len(sent)


async def test_a_round_that_others_took_stops_nothing(start: Start) -> None:
    """Where a cut had the writer take and answer what a round waited for, what comes then is answered all the same."""
    desk = start()
    desk.journal._begin_to_gather()
    await until(lambda: not desk.journal._is_gathering)
    async with asyncio.timeout(WAIT_S):
        await desk.commit(b"1")
    assert desk.lines() == [b"1"]


async def test_short_writes_lose_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a few bytes at a time is written to until it has all."""
    writev: Callable[[int, Sequence[bytes]], int] = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, buffers: writev(descriptor, [bytes(buffers[0])[:3]]))
    desk = start()
    lines = [b"%d" % number * 5 for number in range(50)]
    assert await all_of([desk.send(line) for line in lines]) == [None] * 50
    assert desk.lines() == lines


async def test_lines_of_one_append_stay_together(start: Start, bench: Bench) -> None:
    """Many lines that come as one are written side by side, and acknowledged once."""
    desk = start()
    sent = [desk.send(b"1\n2\n3"), desk.send(b"4")]
    assert await all_of(sent) == [None, None]
    assert desk.lines() == [b"1", b"2", b"3", b"4"]
    assert bench.spool.accounting.open[USAGE.name].bytes == 8


async def test_what_was_written_is_counted(start: Start, bench: Bench) -> None:
    """The counts and the time of a sync follow each round."""
    desk = start()
    await desk.commit(b"1", b"22")
    tally = bench.spool.accounting.open[USAGE.name]
    assert (tally.files, tally.bytes) == (1, 5)
    assert bench.spool.accounting.claimable[USAGE.name].files == 0
    assert bench.metric("sync_duration_seconds_count", stream="usage") == 2
    await desk.journal.cut()
    assert (bench.spool.accounting.claimable[USAGE.name].files, bench.spool.accounting.claimable[USAGE.name].bytes) == (1, 5)


# --- cutting -----------------------------------------------------------------------------------------------------


async def test_the_hour_turns(start: Start, bench: Bench) -> None:
    """A line of the next hour goes into a segment of its own, which is named after its instant."""
    desk = start()
    await desk.commit(b"13h", b"13h too")
    bench.clock.now_ns += MINUTE_NS
    await desk.commit(b"14h")
    (old, old_data), (new, new_data) = desk.files().items()
    assert (clock.hour_of(int(old.partition(".")[0])), old_data) == (HOUR, b"13h\n13h too\n")
    assert (clock.hour_of(int(new.partition(".")[0])), new_data) == (NEXT_HOUR, b"14h\n")
    assert (old.endswith(".7.jsonl"), new.endswith(".7.jsonl.open")) == (True, True)


async def test_the_hour_turns_within_a_round(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of several hours that wait together are parted by their hours, and all are acknowledged."""
    slow = SlowSync(monkeypatch)
    desk = start()
    sent = [desk.send(b"first")]
    await slow.begun()
    for number in range(6):
        sent.append(desk.send(b"%d" % number))
        if number % 2:
            bench.clock.now_ns += clock.HOUR_NS
    slow.go()
    assert await all_of(sent) == [None] * 7
    assert list(desk.files().values()) == [b"first\n0\n1\n", b"2\n3\n", b"4\n5\n"]
    assert [name.endswith(".open") for name in desk.files()] == [False, False, True]


async def test_a_segment_is_cut_at_its_size(start: Start) -> None:
    """A segment that has reached its size is ended, and the next line begins another."""
    desk = start(max_bytes=10)
    await desk.commit(b"1234", b"56789", b"x")
    await desk.journal.cut()
    assert list(desk.files().values()) == [b"1234\n56789\n", b"x\n"]


async def test_a_segment_is_cut_at_its_records(start: Start) -> None:
    """A segment that holds as many lines as a batch may have is ended, whatever came in one body."""
    desk = start(max_records=3)
    await desk.commit(b"1\n2", b"3", b"4")
    await desk.journal.cut()
    assert list(desk.files().values()) == [b"1\n2\n3\n", b"4\n"]


async def test_a_segment_is_cut_at_its_age(start: Start, bench: Bench) -> None:
    """A segment that nobody writes to any more is ended by itself when it is old enough."""
    cut = asyncio.Event()
    loop = asyncio.get_running_loop()
    bench.listeners[USAGE.name] = lambda: _set(loop, cut)
    desk = start(max_age_s=0.05)
    await desk.commit(b"1")
    await soon(cut)
    assert [(name.endswith(".jsonl"), data) for name, data in desk.files().items()] == [(True, b"1\n")]


async def test_age_is_measured_by_the_monotonic_clock(start: Start, bench: Bench) -> None:
    """A clock of the machine that is stepped forward within the hour cuts nothing, the monotonic one does."""
    now = [0.0]
    desk = start(max_age_s=1e6, monotonic=lambda: now[0])
    await desk.commit(b"1")
    bench.clock.now_ns += MINUTE_NS - 1000
    now[0] = 5e5
    await desk.commit(b"2")
    assert desk.open_segment()
    now[0] = 1e6
    await desk.commit(b"3")
    await until(lambda: any(name.endswith(".jsonl") for name in desk.files()))
    await desk.commit(b"4")
    assert desk.lines() == [b"1", b"2", b"3", b"4"]


async def test_a_cut_is_asked_for(start: Start) -> None:
    """When `cut` returns, everything appended before it stands in cut segments; with nothing to cut it does nothing."""
    desk = start()
    await desk.journal.cut()
    sent = desk.send(b"1")
    await desk.journal.cut()
    assert await all_of([sent]) == [None]
    await desk.journal.cut()
    (name,) = desk.files()
    assert name.endswith(".7.jsonl")


async def test_close_cuts(start: Start) -> None:
    """The end of a journal writes what waits and cuts; what comes after it is refused."""
    desk = start()
    sent = [desk.send(b"%d" % number) for number in range(100)]
    async with asyncio.timeout(WAIT_S):
        await desk.journal.close()
        await desk.journal.close()
        await desk.journal.cut()
    assert await all_of(sent) == [None] * 100
    assert [name.endswith(".jsonl") for name in desk.files()] == [True]
    with pytest.raises(Stopping):
        desk.send(b"late")


async def test_a_cut_that_is_asked_for_at_the_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for a cut while the writer makes its last one is answered when that is done."""
    desk = start()
    await desk.commit(b"1")
    begun, gate, place = threading.Event(), threading.Event(), disk.place

    def slow(source: Path, target: Path) -> None:
        begun.set()
        assert gate.wait(WAIT_S)
        place(source, target)

    monkeypatch.setattr(disk, "place", slow)
    closing = asyncio.create_task(desk.journal.close())
    assert await asyncio.to_thread(begun.wait, WAIT_S)
    cutting = asyncio.create_task(desk.journal.cut())
    await asyncio.sleep(0)
    gate.set()
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(closing, cutting)
    assert [name.endswith(".jsonl") for name in desk.files()] == [True]


async def test_a_segment_that_cannot_be_cut_is_written_on(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the rename fails, no line is lost or refused, and the next cut succeeds."""
    desk = start(max_bytes=1)
    with monkeypatch.context() as patch:
        Fault(patch, "place")
        await desk.commit(b"1", b"2")
        await desk.journal.cut()
    assert desk.open_segment()
    await desk.journal.cut()
    assert list(desk.files().values()) == [b"1\n2\n"]


async def test_a_cut_that_keeps_failing_is_told_when_it_begins(
    start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segment that cannot be cut for a while is told once and not with every line that is written to it."""
    desk = start(max_bytes=1)
    with monkeypatch.context() as patch:
        Fault(patch, "place")
        await desk.commit(*(b"%d" % number for number in range(20)))
    await desk.journal.cut()
    assert len(bench.told("segment not cut")) == 1


# --- bounds ------------------------------------------------------------------------------------------------------


async def test_what_waits_is_bounded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound of pending bytes a line is refused at once, and once the disk has caught up none is."""
    slow = SlowSync(monkeypatch)
    desk = start(pending=10)
    sent = [desk.send(b"1234")]
    await slow.begun()
    sent.append(desk.send(b"6789"))
    with pytest.raises(Overloaded):
        desk.send(b"")
    slow.go()
    assert await all_of(sent) == [None, None]
    await desk.commit(b"1234", b"5678")
    assert desk.lines() == [b"1234", b"6789", b"1234", b"5678"]


async def test_a_line_larger_than_the_bound_is_taken_alone(start: Start) -> None:
    """Where nothing else waits, a line of any size is taken."""
    desk = start(pending=10)
    await desk.commit(b"x" * 1000)
    assert desk.lines() == [b"x" * 1000]


# --- a disk that fails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOSPC, SpoolFull), (errno.EDQUOT, SpoolFull), (errno.EIO, SpoolBroken)])
@pytest.mark.parametrize("before", [[], [b"kept"]])
async def test_nothing_of_a_failed_write_stays(
    start: Start, monkeypatch: pytest.MonkeyPatch, number: int, refused: type[GatewayError], before: list[bytes]
) -> None:
    """When the disk is full in the middle of a line, no byte of the round is left, and later lines stand behind earlier ones."""
    desk = start()
    await desk.commit(*before)

    def full(descriptor: int, buffers: Sequence[bytes]) -> int:
        os.write(descriptor, b"".join(buffers)[:-2])
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", full)
        with pytest.raises(refused):
            await desk.commit(b"failed")
    assert desk.lines() == before
    await desk.commit(b"later")
    assert desk.lines() == [*before, b"later"]
    await desk.journal.cut()
    assert desk.journal.current_fault() is None


async def test_a_failed_round_fails_whole(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the lines that shared a failed round are refused, and none of them appears."""
    slow = SlowSync(monkeypatch)
    desk = start()
    first = desk.send(b"first")
    await slow.begun()
    with monkeypatch.context() as patch:
        Fault(patch, "write_all", errno.ENOSPC, times=1)
        others = [desk.send(b"%d" % number) for number in range(10)]
        slow.go()
        ends = await all_of([first, *others])
    assert ends[0] is None
    assert all(isinstance(end, SpoolFull) for end in ends[1:])
    await desk.commit(b"last")
    assert desk.lines() == [b"first", b"last"]


async def test_after_a_failed_sync_the_file_is_not_trusted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The synced lines are copied to a file of their own, synced, before anything else is acknowledged.

    The kernel may have dropped the pages that it could not write and call them clean: a second sync of the same file
    would say yes to what is not on the disk.
    """
    desk = start()
    await desk.commit(b"kept")
    inode = desk.open_segment().stat().st_ino
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
    assert desk.lines() == [b"kept"]
    assert desk.open_segment().stat().st_ino != inode
    await desk.commit(b"later")
    assert desk.lines() == [b"kept", b"later"]
    assert list(desk.bench.spool.directories.tmp.iterdir()) == []


async def test_the_copy_is_durable_before_anything_is_acknowledged(
    start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy is synced, put in place, and its directory synced, before the failed lines are answered."""
    desk = start()
    await desk.commit(b"kept")
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        trace = Trace(patch, bench.spool.root)
        sent = desk.send(b"failed")
        sent.add_done_callback(lambda _: trace.note("done"))
        assert isinstance((await all_of([sent]))[0], SpoolBroken)
    copied = trace.first("copy_part usage/")
    assert trace.first("sync tmp/") < copied < trace.first("replace tmp/") < trace.first("sync_directory usage")
    assert trace.first("sync_directory usage") < trace.first("done")


# --- a segment that loses its name ---------------------------------------------------------------------------------


async def test_nothing_is_acknowledged_in_a_segment_that_somebody_has_renamed(start: Start) -> None:
    """Another gateway would have cut it: what is written to it afterwards is in nobody's way, and is answered with an error."""
    desk = start()
    await desk.commit(b"kept")
    cut = desk.open_segment()
    cut.rename(cut.with_name(cut.name.removesuffix(".open")))
    with pytest.raises(SpoolBroken, match="a segment is not where it was written"):
        await desk.commit(b"failed")
    await desk.commit(b"later")
    assert sorted(desk.lines()) == [b"kept", b"later"]
    assert desk.bench.told("segment rescued") == []


async def test_lines_of_a_segment_that_was_claimed_are_not_copied(start: Start) -> None:
    """It stands in a batch, and is on its way from there."""
    desk = start()
    await desk.commit(b"kept")
    batch = desk.bench.spool.directories.aggregation(USAGE) / str(names.new_batch(HOUR, "other", bytes(16)))
    batch.mkdir()
    opened = desk.open_segment()
    opened.rename(batch / opened.name.removesuffix(".open"))
    with pytest.raises(SpoolBroken):
        await desk.commit(b"failed")
    await desk.commit(b"later")
    assert desk.lines() == [b"later"]


async def test_lines_of_a_segment_that_was_removed_are_rescued(start: Start) -> None:
    """A cleaner of old files took it: what was acknowledged in it is copied through the descriptor, and waits for a claim."""
    desk = start()
    await desk.commit(b"one", b"two")
    desk.open_segment().unlink()
    with pytest.raises(SpoolBroken):
        await desk.commit(b"failed")
    await desk.commit(b"later")
    assert sorted(desk.lines()) == [b"later", b"one", b"two"]
    assert desk.bench.spool.accounting.claimable["usage"].files == 1
    assert desk.bench.spool.accounting.open["usage"].bytes == len(b"later\n")
    (told,) = desk.bench.told("segment rescued")
    assert told["bytes"] == len(b"one\ntwo\n")


async def test_a_removed_segment_is_rescued_when_it_is_cut(start: Start) -> None:
    """No further report comes: the end of its age, or a stop, finds out."""
    desk = start()
    await desk.commit(b"one")
    desk.open_segment().unlink()
    await desk.journal.cut()
    assert desk.lines() == [b"one"]
    assert desk.bench.spool.accounting.open["usage"].bytes == 0
    assert len(desk.bench.told("segment rescued")) == 1
    assert desk.bench.told("segment not cut") == []


async def test_a_removed_segment_is_rescued_when_the_hour_turns(start: Start, bench: Bench) -> None:
    """The report that turns it is answered with an error at most, and the stream goes on."""
    desk = start()
    await desk.commit(b"one")
    desk.open_segment().unlink()
    bench.clock.now_ns += 60 * MINUTE_NS
    with pytest.raises(SpoolBroken):
        await desk.commit(b"failed")
    await desk.commit(b"later")
    assert sorted(desk.lines()) == [b"later", b"one"]


async def test_a_removed_segment_is_rescued_after_a_failed_sync(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both at a time: its path leads to nothing that could be copied."""
    desk = start()
    await desk.commit(b"one")
    desk.open_segment().unlink()
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
    await desk.commit(b"later")
    assert sorted(desk.lines()) == [b"later", b"one"]


@pytest.mark.parametrize("left", [0, 4])
async def test_a_segment_that_somebody_shortens_is_not_made_longer(start: Start, left: int) -> None:
    """What is answered with an error does not appear, nothing is made up for what is missing, and the log says that it is."""
    desk = start()
    await desk.commit(b"one", b"two")
    with desk.open_segment().open("r+b") as file:
        file.truncate(left)
    with pytest.raises(SpoolBroken):
        await desk.commit(b"refused")
    await desk.commit(b"later")
    assert b"".join(desk.files().values()) == b"one\n"[:left] + b"later\n"
    (told,) = desk.bench.told("segment truncated")
    assert told["bytes"] == len(b"one\ntwo\n") - left


async def test_a_rescue_that_fails_again_and_again_takes_nothing_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cut off behind the acknowledged lines is cut off once."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.01)
    desk = start()
    await desk.commit(b"one", b"two", b"three")
    desk.open_segment().unlink()
    with monkeypatch.context() as patch:
        fault = Fault(patch, "sync", times=4)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
        await until(lambda: fault.calls > 4 and desk.journal.fault is None)
    await desk.commit(b"later")
    assert sorted(desk.lines()) == [b"later", b"one", b"three", b"two"]
    assert desk.bench.told("segment truncated") == []


async def test_a_copy_that_fails_before_the_file_is_gone_loses_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed sync, no room for the copy, and then somebody removes the file."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.01)
    desk = start()
    await desk.commit(b"one", b"two")
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        copying = Fault(patch, "copy_part", errno.ENOSPC)
        with pytest.raises((SpoolBroken, SpoolFull)):
            await desk.commit(b"failed")
        await until(lambda: copying.calls > 2)
        desk.open_segment().unlink()
        await until(lambda: desk.journal.fault is None)
    await desk.commit(b"later")
    assert sorted(desk.lines()) == [b"later", b"one", b"two"]


@pytest.mark.parametrize("step", ["sync_directory", "reopen", "replace"])
async def test_a_copy_that_is_half_done_is_the_segment_or_not(start: Start, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Whichever step fails, there is one file with the lines in the end, and no draft."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.01)
    desk = start()
    await desk.commit(b"one", b"two")
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        Fault(patch, step, times=1)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
        await until(lambda: desk.journal.fault is None)
    await desk.commit(b"later")
    assert desk.lines() == [b"one", b"two", b"later"]
    assert len(desk.files()) == 1
    assert list(desk.bench.spool.directories.tmp.iterdir()) == []
    assert desk.bench.told("segment rescued") == []


async def test_a_line_that_was_cut_through_is_no_beginning_of_another(start: Start) -> None:
    """Nor does a write that fails at the same time make the file longer."""
    desk = start()
    await desk.commit(b"one", b"two")
    with desk.open_segment().open("r+b") as file:
        file.truncate(6)
    with pytest.raises(SpoolBroken):
        await desk.commit(b"refused")
    await desk.commit(b"later")
    assert sorted(desk.lines()) == [b"later", b"one"]


async def test_a_shortened_segment_is_cut_as_it_is(start: Start) -> None:
    """No further report comes: what waits is counted by what is there."""
    desk = start()
    await desk.commit(b"one", b"two")
    with desk.open_segment().open("r+b") as file:
        file.truncate(6)
    await desk.journal.cut()
    assert desk.lines() == [b"one"]
    assert desk.bench.spool.accounting.waiting["usage"].bytes == len(b"one\n")
    assert desk.bench.spool.accounting.open["usage"].bytes == 0
    assert len(desk.bench.told("segment truncated")) == 1


async def test_a_segment_of_which_nothing_is_left_is_dropped(start: Start) -> None:
    """An empty one is nothing to be sent."""
    desk = start()
    await desk.commit(b"one")
    desk.open_segment().write_bytes(b"")
    await desk.journal.cut()
    assert desk.files() == {}
    assert desk.bench.spool.accounting.waiting["usage"].files == 0


async def test_no_segment_is_begun_in_another_directory(start: Start) -> None:
    """One that looks alike has taken the place of ours, and nobody has looked since."""
    desk = start()
    root, away = desk.bench.spool.root, desk.bench.spool.root.with_name("away")
    desk.bench.spool.ownership.know(desk.bench.spool.directories.all())
    root.rename(away)
    (root / "usage").mkdir(parents=True)
    with pytest.raises(SpoolBroken, match="is not the directory it was started on"):
        await desk.commit(b"failed")
    assert list((root / "usage").iterdir()) == []
    (root / "usage").rmdir()
    root.rmdir()
    away.rename(root)


async def test_a_segment_whose_directory_is_moved_as_it_begins_is_dropped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is empty, and would stay until the next start."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.02)
    desk = start()
    root, away = desk.bench.spool.root, desk.bench.spool.root.with_name("away")
    desk.bench.spool.ownership.know(desk.bench.spool.directories.all())
    create = disk.create

    def create_and_move(path: Path) -> int:
        descriptor = create(path)
        root.rename(away)
        return descriptor

    with monkeypatch.context() as patch:
        patch.setattr(disk, "create", create_and_move)
        with pytest.raises(SpoolBroken, match="is not the directory it was started on"):
            await desk.commit(b"failed")
    away.rename(root)
    await until(lambda: desk.journal.fault is None)
    assert desk.files() == {}
    assert desk.bench.spool.accounting.open["usage"].files == 0
    await desk.commit(b"later")
    assert desk.lines() == [b"later"]


async def test_what_was_rescued_is_not_found_a_second_time(start: Start, tmp_path: Path) -> None:
    """The segment was not removed but moved, by somebody who may put it back."""
    desk = start()
    await desk.commit(b"one")
    elsewhere = tmp_path / "elsewhere"
    desk.open_segment().rename(elsewhere)
    await desk.journal.cut()
    assert desk.lines() == [b"one"]
    assert elsewhere.read_bytes() == b""


async def test_a_directory_that_is_elsewhere_is_not_written_to(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moved, with another in its place: nothing is acknowledged until it is back, and then everything is there once."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.02)
    desk = start()
    root, away = desk.bench.spool.root, desk.bench.spool.root.with_name("away")
    desk.bench.spool.ownership.know(desk.bench.spool.directories.all())
    await desk.commit(b"kept")
    root.rename(away)
    (root / "usage").mkdir(parents=True)
    for _ in range(2):
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
    assert list((root / "usage").iterdir()) == []
    (root / "usage").rmdir()
    root.rmdir()
    away.rename(root)
    await until(lambda: desk.journal.fault is None)
    await desk.commit(b"later")
    assert desk.lines() == [b"kept", b"later"]


async def test_a_segment_of_another_gateway_s_directory_is_left_alone(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another gateway has taken the directory, and removes what it has delivered: a copy would be delivered twice."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.02)
    desk = start()
    await desk.commit(b"kept")
    desk.open_segment().unlink()
    monkeypatch.setattr(desk.bench.spool.ownership, "_find", lambda: owner._Fault("taken", "by another gateway"))
    with pytest.raises(SpoolBroken):
        await desk.commit(b"failed")
    await asyncio.sleep(0.1)
    assert desk.journal.fault is not None
    assert desk.lines() == []


async def test_a_failed_sync_of_the_first_line_leaves_no_segment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment none of whose lines was ever synced is removed."""
    desk = start()
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
    assert desk.files() == {}
    assert desk.bench.spool.accounting.open[USAGE.name].files == 0
    await desk.commit(b"later")
    assert desk.lines() == [b"later"]


@pytest.mark.parametrize("step", ["create", "sync_directory"])
async def test_a_segment_that_cannot_be_begun_is_no_segment(start: Start, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Where the new segment, or the entry that leads to it, cannot be made durable, nothing is acknowledged in it."""
    desk = start()
    with monkeypatch.context() as patch:
        Fault(patch, step, times=1)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
    assert desk.files() == {}
    await desk.commit(b"later")
    assert desk.lines() == [b"later"]
    assert desk.bench.spool.accounting.open[USAGE.name].files == 1


@pytest.mark.parametrize("step", ["copy_part", "replace", "reopen", "sync_directory"])
async def test_a_stream_that_cannot_be_restored_refuses_and_recovers(
    start: Start, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """While the copy fails too, new lines are refused at once; when the disk is back the stream is, by itself."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.005)
    desk = start()
    await desk.commit(b"kept")
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        fault = Fault(patch, step)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
        fault_told = desk.journal.current_fault()
        assert isinstance(fault_told, SpoolBroken)
        with pytest.raises(SpoolBroken):
            desk.send(b"refused")
        assert desk.lines() == [b"kept"]
        fault.mend()
        # Nobody asks the writer for anything meanwhile.
        await until(lambda: desk.journal.current_fault() is None)
    await desk.commit(b"later")
    assert desk.lines() == [b"kept", b"later"]
    assert desk.bench.spool.accounting.open[USAGE.name].files == 1
    await desk.journal.cut()
    events = [line["event"] for line in desk.bench.told() if line["event"].startswith("spool ")]
    assert events == ["spool failed", "spool recovered"]


async def test_the_old_file_is_let_go_only_when_the_new_one_is_open(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the restored segment cannot be opened, no descriptor is used or closed that may be another file's by then."""
    desk = start()
    await desk.commit(b"kept")
    stolen: list[int] = []
    close = disk.close

    def close_and_lose(descriptor: int) -> None:
        """Close, and let another part of the program get the number, as it may at any time."""
        close(descriptor)
        stolen.append(os.open(desk.bench.spool.root / "FORMAT", os.O_RDWR))

    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        Fault(patch, "reopen", errno.EMFILE, times=1)
        patch.setattr(disk, "close", close_and_lose)
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
        await desk.journal.cut()
    assert desk.bench.spool.directories.format_version() == FORMAT_VERSION, "another file was cut off"
    for descriptor in stolen:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    await desk.commit(b"later")
    assert desk.lines() == [b"kept", b"later"]


async def test_nobody_is_answered_while_the_lines_can_be_read(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even cutting the file back works, the senders wait: a line answered with an error must never appear."""
    monkeypatch.setattr(journal, "RESTORE_PAUSE_S", 0.005)
    desk = start()
    await desk.commit(b"kept")
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        faults = [Fault(patch, "copy_part"), Fault(patch, "truncate_unsynced")]
        sent = desk.send(b"failed")
        await until(lambda: faults[1].calls >= 3)
        assert not sent.done()
        assert b"failed" in desk.lines()
        for fault in faults:
            fault.mend()
        assert isinstance((await all_of([sent]))[0], SpoolBroken)
    assert desk.lines() == [b"kept"]


async def test_lines_that_waited_behind_a_failure_are_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was queued when the disk failed for good is refused and not written, and the hour's turn changes nothing of it."""
    slow = SlowSync(monkeypatch)
    desk = start()
    first = desk.send(b"first")
    await slow.begun()
    with monkeypatch.context() as patch:
        Fault(patch, "write_all")
        Fault(patch, "truncate")
        behind = [desk.send(b"behind")]
        desk.bench.clock.now_ns += clock.HOUR_NS
        behind.append(desk.send(b"of the next hour"))
        slow.go()
        ends = await all_of([first, *behind])
    assert ends[0] is None
    assert [type(end) for end in ends[1:]] == [SpoolBroken, SpoolBroken]
    await desk.journal.cut()
    await desk.commit(b"last")
    assert desk.lines() == [b"first", b"last"]


async def test_a_close_with_a_broken_disk_ends(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway can stop with a disk that refuses everything; what was acknowledged is found at the next start."""
    desk = start()
    await desk.commit(b"kept")
    with monkeypatch.context() as patch:
        Fault(patch, "sync", times=1)
        Fault(patch, "copy_part")
        with pytest.raises(SpoolBroken):
            await desk.commit(b"failed")
        async with asyncio.timeout(WAIT_S):
            await desk.journal.close()
    assert desk.lines() == [b"kept"]
    assert desk.open_segment()


async def test_a_defect_of_the_writer_is_no_silence(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error that nobody foresaw what waited and what comes is refused, and whoever can start anew is told, once."""
    desk = start()
    told: list[str] = []
    monkeypatch.setattr(desk.journal, "_on_defect", lambda: told.append("defect"))
    await desk.commit(b"kept")
    begun, gate = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def defect(*_: object) -> int:
        _set(loop, begun)
        assert gate.wait(WAIT_S)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", defect)
        hit = desk.send(b"hit")
        await soon(begun)
        behind = desk.send(b"behind")
        closed = asyncio.create_task(desk.journal.close())
        await asyncio.sleep(0)
        gate.set()
        async with asyncio.timeout(WAIT_S):
            await closed
        # Of the line in hand nobody knows whether it stays, and none of those behind it was written.
        assert [type(end) for end in await all_of([hit, behind])] == [Unanswerable, SpoolBroken]
    with pytest.raises(SpoolBroken):
        desk.send(b"refused")
    assert len(desk.bench.told("defect")) == 1
    assert told == ["defect"]


async def test_a_defect_answers_nobody_twice(start: Start, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the writer fails after it has acknowledged a part of what it had in hand, that part stays acknowledged."""
    slow = SlowSync(monkeypatch)
    desk = start()
    answers: list[GatewayError | None] = []
    desk.send(b"first")
    await slow.begun()
    desk.journal.append(bench.spool.timestamps.next(), b"acknowledged\n", answers.append)
    bench.clock.now_ns += clock.HOUR_NS
    hit = desk.send(b"of the next hour, where the writer fails")
    real, calls = disk.write_all, [0]

    def defect(descriptor: int, buffers: Sequence[bytes]) -> int:
        calls[0] += 1
        if calls[0] == 2:
            raise ZeroDivisionError
        return real(descriptor, buffers)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", defect)
        slow.go()
        assert [type(end) for end in await all_of([hit])] == [Unanswerable]
        await desk.journal.close()
    assert answers == [None]


async def test_a_defect_between_hours_answers_each_report_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the hours of a round are mixed, as after a step of the clock, a defect leaves no report without an answer."""
    limits = SegmentLimits(max_bytes=1 << 20, max_age_s=3600.0, pending_bytes=1 << 20)
    journal = Journal(bench.spool, USAGE, limits, log=bench.log, metrics=bench.metrics)
    journal.start()
    real, rounds = journal._round, itertools.count()

    def failing(hour: int, entries: Any) -> None:
        if next(rounds):
            raise ZeroDivisionError("a defect")
        real(hour, entries)

    monkeypatch.setattr(journal, "_round", failing)
    answers: dict[int, list[object]] = {number: [] for number in range(3)}
    begin = clock.instant_of(HOUR)
    for number, received in enumerate((begin + 1, begin + clock.HOUR_NS + 1, begin + 2)):
        journal.append(received, b"%d\n" % number, answers[number].append)
    await until(lambda: all(answers.values()))
    await journal.close()
    assert [len(each) for each in answers.values()] == [1, 1, 1]
    assert answers[0] == answers[2] == [None]
    assert isinstance(answers[1][0], Unanswerable)
