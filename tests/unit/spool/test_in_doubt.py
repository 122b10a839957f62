"""What may have to be taken back is known to all processes."""

from __future__ import annotations

import pytest

from gateway.core.shared_counters import SharedCounters
from gateway.spool.in_doubt import InDoubt


def in_doubt(count: int) -> list[InDoubt]:
    """InDoubt names as each of so many processes sees them."""
    first = SharedCounters(count)
    others = [SharedCounters(count, column=column, descriptor=first.descriptor) for column in range(1, count)]
    return [InDoubt(counters, "in_doubt") for counters in (first, *others)]


@pytest.mark.parametrize("asked", [0, 1])
def test_a_name_is_unsettled_until_it_is_durable(asked: int) -> None:
    """From its begin to its end a name of this process may be taken back, whoever asks, and so may all that came later."""
    both = in_doubt(2)
    both[1].begin(50)
    assert [both[asked].holds(instant, 1) for instant in (49, 50, 51)] == [False, True, True]
    both[1].end(50)
    assert not both[asked].holds(50, 1)


def test_names_of_others_do_not_matter() -> None:
    """A name of the same instant that another process gave is settled."""
    first, second = in_doubt(2)
    second.begin(50)
    assert not first.holds(50, 0)


def test_the_earliest_counts() -> None:
    """Several at a time end in any order; what is earlier than all of those that are left is settled."""
    first, second = in_doubt(2)
    for instant in (60, 50, 70):
        second.begin(instant)
    second.end(60)
    assert first.holds(50, 1)
    second.end(50)
    assert [first.holds(instant, 1) for instant in (50, 60, 69, 70)] == [False, False, False, True]


def test_of_a_dead_process_nothing_is_unsettled() -> None:
    """Once it is forgotten, all its names are settled, and those of the next one in its place are not."""
    first, second = in_doubt(2)
    second.begin(50)
    first.forget(1)
    assert not first.holds(50, 1)
    second.begin(80)
    assert first.holds(80, 1)
