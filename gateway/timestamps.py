"""The clock that names are made from: nanoseconds since the epoch that only ever increase."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Timestamps:
    """Hands out instants, each later than the one before, whatever the machine's clock does meanwhile.

    Containers know coarse clocks, clocks that are stepped back and a pid that is always 1: without this two reports
    could get one name.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._last = 0
        self._lock = threading.Lock()

    def start_above(self, instant_ns: int) -> None:
        """Never hand out `instant_ns` or anything before it."""
        with self._lock:
            self._last = max(self._last, instant_ns)

    def next(self) -> int:
        """The next instant: now, or one nanosecond after the last one if now is not later."""
        with self._lock:
            now = self._clock_ns()
            self._last = now if now > self._last else self._last + 1
            return self._last
