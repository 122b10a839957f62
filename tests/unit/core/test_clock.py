"""Instants only ever increase, whatever the machine's clock does."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import Timestamps


@given(st.lists(st.integers(0, 100), min_size=1))
def test_instants_increase_strictly(readings: list[int]) -> None:
    """A clock that is coarse, or is stepped back, gives no instant twice and none before an earlier one."""
    clock = iter(readings)
    timestamps = Timestamps(lambda: next(clock))
    given_out = [timestamps.next() for _ in readings]
    assert all(one < other for one, other in pairwise(given_out))


def test_a_clock_that_runs_is_followed() -> None:
    """While the clock increases, instants are its readings."""
    clock = iter([5, 9, 12])
    timestamps = Timestamps(lambda: next(clock))
    assert [timestamps.next() for _ in range(3)] == [5, 9, 12]


def test_instants_start_above_what_is_spooled() -> None:
    """After a start with a clock that was set back, the first instant is later than the newest file."""
    timestamps = Timestamps(lambda: 10)
    timestamps.start_above(500)
    assert timestamps.next() == 501
    timestamps.start_above(100)
    assert timestamps.next() == 502


def test_threads_get_no_instant_twice() -> None:
    """However many threads ask, each gets instants of its own, in its own order."""
    timestamps = Timestamps(lambda: time.time_ns() // 1_000_000_000)
    got: list[list[int]] = [[] for _ in range(8)]

    def take(mine: list[int]) -> None:
        mine.extend(timestamps.next() for _ in range(2000))

    threads = [threading.Thread(target=take, args=(mine,)) for mine in got]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({instant for mine in got for instant in mine}) == 8 * 2000
    assert all(mine == sorted(mine) for mine in got)
