"""What one process counts is in the sum of all, and what it leaves behind can be taken back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from gateway.core.shared_counters import SharedCounters
from gateway.spool.tally import Tally


def counters(count: int) -> list[SharedCounters]:
    """Counters as each of so many processes sees it."""
    first = SharedCounters(count)
    return [first, *(SharedCounters(count, column=column, descriptor=first.descriptor) for column in range(1, count))]


def tallies(count: int) -> list[Tally]:
    """A tally as each of so many processes sees it."""
    return [Tally(counters, "tally") for counters in counters(count)]


def test_what_one_adds_another_takes_off() -> None:
    """A file that one process commits and another delivers is counted once, and then no more, by all of them."""
    first, second, third = tallies(3)
    second.add(2, 300)
    third.add(1, 50)
    assert [(each.files, each.bytes) for each in (first, second, third)] == [(3, 350)] * 3
    first.add(-2, -300)
    assert [(each.files, each.bytes) for each in (first, second, third)] == [(1, 50)] * 3


def test_what_a_process_counted_can_be_forgotten() -> None:
    """Only its own part is."""
    first, second, third = tallies(3)
    for number, each in enumerate((first, second, third), start=1):
        each.add(number, 10 * number)
    first.forget(1)
    assert (first.files, first.bytes) == (4, 40)


def test_threads_of_a_process_count_together() -> None:
    """Nothing is lost between the threads of one process."""
    (tally,) = tallies(1)

    def add_many(_: int) -> None:
        for _ in range(2000):
            tally.add(1, 2)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add_many, range(8)))
    assert (tally.files, tally.bytes) == (16_000, 32_000)
