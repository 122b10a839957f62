"""What is said of the spool is true in every state of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.core import clock
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
