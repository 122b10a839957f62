"""Instants only ever increase, whatever the machine's clock does."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.clock import HOUR_NS, NANOSECONDS, Timestamps, hour_of, instant_of, iso
from testkit.texts import instants


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


@given(instants)
def test_an_instant_is_in_its_hour(instant: int) -> None:
    """An hour begins at the instant its digits say and lasts 3,600 seconds."""
    begin = instant_of(hour_of(instant))
    assert begin <= instant < begin + HOUR_NS


@pytest.mark.parametrize("digits", ["2026112124", "2026130100", "0000000000", "9999999999"])
def test_digits_that_are_no_hour_are_no_error(digits: str) -> None:
    """A batch that a person renamed to an hour which does not exist counts as very old."""
    assert instant_of(digits) == 0


def test_iso_has_nanoseconds() -> None:
    """An instant is written with all its digits, in UTC."""
    assert iso(1_795_269_540_000_000_007) == "2026-11-21T13:59:00.000000007Z"


def test_hours_are_of_utc() -> None:
    """The hour of a name is the hour of UTC."""
    assert hour_of(int(datetime(2026, 11, 21, 13, 59, 59, tzinfo=UTC).timestamp()) * NANOSECONDS) == "2026112113"
