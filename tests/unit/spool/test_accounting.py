"""What is said of the spool is true in every state of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core import clock, disk
from gateway.core.streams import CutRule
from gateway.spool import names
from gateway.spool.journal import Journal, SegmentLimits
from gateway.spool.recovery import recover_process
from gateway.stores.local import LocalStore
from testkit.spool import HOUR, SPECIMEN, START_NS, USAGE, Bench, batch_and_deliver, claim, open_bench, seal_claimed, tree


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


def test_the_oldest_instant_is_that_of_the_oldest_thing(bench: Bench) -> None:
    """The age of what waits is that of the oldest file, and of a batch that of its hour."""
    assert bench.spool.accounting.oldest_instant(USAGE) is None
    bench.clock.now_ns += 5
    bench.report(b"1")
    # After the clock was set back.
    bench.clock.now_ns -= 3
    bench.report(b"2")
    assert bench.spool.accounting.oldest_instant(USAGE) == START_NS + 2
    claimed = claim(bench)
    assert bench.spool.accounting.oldest_instant(USAGE) == clock.instant_of(HOUR)
    seal_claimed(bench, claimed)
    assert bench.spool.accounting.oldest_instant(USAGE) == clock.instant_of(HOUR)
    assert bench.spool.accounting.oldest_instant(SPECIMEN) is None


def test_what_waits_is_counted_through_all_states(bench: Bench, tmp_path: Path) -> None:
    """In every state the count of bytes is that of the files, and it is nothing once all is delivered."""

    def on_disk() -> int:
        return sum(len(data or b"") for name, data in tree(bench.spool.root).items() if not name.endswith(".meta"))

    bench.report(b"123")
    bench.file(b"abc")
    assert bench.spool.accounting.used_bytes() == on_disk() == 7
    claimed = claim(bench)
    assert bench.spool.accounting.used_bytes() == on_disk()
    seal_claimed(bench, claimed)
    assert bench.spool.accounting.used_bytes() == on_disk()
    batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
    assert [(tally.files, tally.bytes) for tally in bench.spool.accounting.waiting.values()] == [(0, 0)] * 3


def test_a_count_that_was_corrected_stays_right(tmp_path: Path) -> None:
    """A recount puts a wrong count right once; the next one finds nothing to correct, and what comes is counted on."""
    with open_bench(tmp_path) as bench:
        bench.report(b"1")
        waiting = bench.spool.accounting.waiting["usage"]
        right = (waiting.files, waiting.bytes)
        waiting.add(3, -700)
        for _ in range(3):
            assert bench.spool.accounting.recount()
            assert (waiting.files, waiting.bytes) == right
        bench.report(b"2")
        assert waiting.files == right[0] + 1


async def test_no_recount_comes_into_a_cut(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a segment is between its rename and its count, a recount corrects nothing: it would count it twice."""
    found: list[bool] = []
    place = disk.place

    def counting(source: Path, target: Path) -> None:
        place(source, target)
        if source.name.endswith(".open"):
            found.append(bench.spool.accounting.recount())

    monkeypatch.setattr(disk, "place", counting)
    limits = SegmentLimits(max_bytes=1 << 20, max_age_s=3600.0, pending_bytes=1 << 20)
    journal = Journal(bench.spool, USAGE, limits, log=bench.log, metrics=bench.metrics)
    journal.start()
    journal.append(bench.spool.timestamps.now(), b"1\n", lambda _: None)
    await journal.close()
    assert found == [False]
    assert bench.spool.accounting.waiting["usage"].files == 1
    assert bench.spool.accounting.recount()
    assert bench.spool.accounting.waiting["usage"].files == 1


async def test_records_are_counted_before_a_claim_can_take_them(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process a claim may take a file as soon as it has its name: counted later, it would hold no record."""
    stream = replace(USAGE, cut=CutRule(3600.0, 1 << 30, max_records=100))
    place = disk.place

    def taken(source: Path, target: Path) -> None:
        place(source, target)
        if target.parent == bench.spool.directories.of(USAGE):
            target.rename(bench.spool.root.with_name(target.name))

    limits = SegmentLimits(max_bytes=1 << 20, max_age_s=3600.0, pending_bytes=1 << 20)
    journal = Journal(bench.spool, stream, limits, log=bench.log, metrics=bench.metrics)
    journal.start()
    journal.append(bench.spool.timestamps.now(), b"1\n2\n", lambda _: None)
    monkeypatch.setattr(disk, "place", taken)
    await journal.close()
    assert bench.spool.accounting.claimable["usage"].records == 2


def test_records_of_a_dead_process_are_counted_before_a_claim(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the first process cuts what a dead one has left open."""
    stream = replace(USAGE, cut=CutRule(3600.0, 1 << 30, max_records=100))
    with open_bench(bench.spool.root.parent / "other", streams=(stream,)) as other:
        name = names.spool_name(START_NS, START_NS, 4711, names.OPEN_SEGMENT)
        (other.spool.directories.of(stream) / name).write_bytes(b"1\n2\n3\n4")
        place = disk.place

        def taken(source: Path, target: Path) -> None:
            place(source, target)
            target.rename(other.spool.root.with_name(target.name))

        monkeypatch.setattr(disk, "place", taken)
        recover_process(other.spool, 4711)
        assert other.spool.accounting.claimable["usage"].records == 3
