"""The clock, and the order that names are made from: numbers like instants, which only ever increase."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


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
