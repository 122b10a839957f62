"""The clock, and the order that names are made from: numbers like instants, which only ever increase."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

NANOSECONDS = 1_000_000_000
HOUR_NS = 3600 * NANOSECONDS


class Timestamps:
    """Gives the time, and numbers in nanoseconds since the epoch, each above the one before whatever the clock does.

    Containers know coarse clocks, clocks that are stepped back and a pid that is always 1: without the numbers two reports
    could get one name. They are an order and no time of day: after a step back they stay ahead of the clock, which `now` gives
    as it is.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._last = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        """The time of the machine's clock, which may be before that of an earlier call."""
        return self._clock_ns()

    def start_above(self, order: int) -> None:
        """Never give `order` or anything below it."""
        with self._lock:
            self._last = max(self._last, order)

    def ahead_s(self) -> float:
        """By how many seconds the last number is ahead of the clock, 0 where the clock was not stepped back."""
        return max(0, self._last - self._clock_ns()) / 1e9

    def next(self) -> int:
        """The next number: now, or one more than the last one if now is not above it."""
        with self._lock:
            now = self._clock_ns()
            self._last = now if now > self._last else self._last + 1
            return self._last


def hour_of(instant_ns: int) -> str:
    """The UTC hour `YYYYMMDDHH` of an instant in nanoseconds since the epoch."""
    return datetime.fromtimestamp(instant_ns // NANOSECONDS, UTC).strftime("%Y%m%d%H")


def instant_of(hour: str) -> int:
    """The first nanosecond of a UTC hour `YYYYMMDDHH`, 0 for digits that are no hour."""
    try:
        return int(datetime.strptime(hour, "%Y%m%d%H").replace(tzinfo=UTC).timestamp()) * NANOSECONDS
    except ValueError:
        return 0


def iso(instant_ns: int) -> str:
    """The instant as `2026-11-21T13:30:33.123456789Z`."""
    seconds, fraction = divmod(instant_ns, NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
