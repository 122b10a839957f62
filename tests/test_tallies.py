"""What processes tell each other of the spool is the sum of all, and what one leaves behind can be taken back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.board import Board
from gateway.tallies import Tally, Unsettled


def boards(count: int) -> list[Board]:
    """A board as each of so many processes sees it."""
    first = Board(count)
    return [first, *(Board(count, column=column, descriptor=first.descriptor) for column in range(1, count))]


def tallies(count: int) -> list[Tally]:
    """A tally as each of so many processes sees it."""
    return [Tally(board, "tally") for board in boards(count)]


def unsettled(count: int) -> list[Unsettled]:
    """Unsettled names as each of so many processes sees them."""
    return [Unsettled(board, "unsettled") for board in boards(count)]


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


# --- names that are not settled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [0, 1])
def test_a_name_is_unsettled_until_it_is_durable(asked: int) -> None:
    """From its begin to its end a name of this process may be taken back, whoever asks, and so may all that came later."""
    both = unsettled(2)
    both[1].begin(50)
    assert [both[asked].holds(instant, 1) for instant in (49, 50, 51)] == [False, True, True]
    both[1].end(50)
    assert not both[asked].holds(50, 1)


def test_names_of_others_do_not_matter() -> None:
    """A name of the same instant that another process gave is settled."""
    first, second = unsettled(2)
    second.begin(50)
    assert not first.holds(50, 0)


def test_the_earliest_counts() -> None:
    """Several at a time end in any order; what is earlier than all of those that are left is settled."""
    first, second = unsettled(2)
    for instant in (60, 50, 70):
        second.begin(instant)
    second.end(60)
    assert first.holds(50, 1)
    second.end(50)
    assert [first.holds(instant, 1) for instant in (50, 60, 69, 70)] == [False, False, False, True]


def test_of_a_dead_process_nothing_is_unsettled() -> None:
    """Once it is forgotten, all its names are settled, and those of the next one in its place are not."""
    first, second = unsettled(2)
    second.begin(50)
    first.forget(1)
    assert not first.holds(50, 1)
    second.begin(80)
    assert first.holds(80, 1)
