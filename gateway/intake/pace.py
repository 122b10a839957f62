"""How fast a body comes, and when it is too slow."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

# What came faster than it had to counts for so many timeouts of slowness at most: else a client that has sent much could hold the
# connection, and what was written, for days with a byte now and then.
CREDIT_TIMEOUTS = 5
# A speed is measured over so long.
MEASURED_S = 5.0


class Pace:
    """The time that a body has.

    After a grace of one timeout it has to have come, on the whole, at the least rate. While the client has to wait for the
    gateway, as for a slow disk, its time stands still.

    Args:
        min_bytes_per_s: the least rate; 0 for none.
        timeout_s: how long a client may be silent, and the grace.
        monotonic: a clock in seconds.
    """

    __slots__ = (
        "_credit_until",
        "_grace_until",
        "_measured",
        "_measured_from",
        "_monotonic",
        "_speed",
        "min_bytes_per_s",
        "timeout_s",
    )

    def __init__(self, min_bytes_per_s: int, timeout_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.min_bytes_per_s = min_bytes_per_s
        self.timeout_s = timeout_s
        self._monotonic = monotonic
        now = monotonic()
        self._grace_until = now + timeout_s
        self._credit_until = self._measured_from = now
        self._measured = 0
        self._speed = 0.0

    def came(self, size: int) -> None:
        """So many bytes have come."""
        now = self._monotonic()
        if self.min_bytes_per_s:
            credit_until = self._credit_until + size / self.min_bytes_per_s
            self._credit_until = max(self._credit_until, min(credit_until, now + CREDIT_TIMEOUTS * self.timeout_s))
        self._measured += size
        if now - self._measured_from >= MEASURED_S:
            self._speed = self._measured / (now - self._measured_from)
            self._measured_from, self._measured = now, 0

    def left_s(self) -> float:
        """How long the client may go on without a byte before it is too slow; below 0 if it is."""
        if not self.min_bytes_per_s:
            return math.inf
        return max(self._grace_until, self._credit_until) - self._monotonic()

    def speed(self) -> float | None:
        """Bytes a second of late; None in the first moments."""
        now = self._monotonic()
        if now - self._measured_from >= MEASURED_S:
            return self._measured / (now - self._measured_from)
        return self._speed or None

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """For as long as this lasts it is the gateway that the client waits for."""
        begun = self._monotonic()
        try:
            yield
        finally:
            self.stood_still(self._monotonic() - begun)

    def stood_still(self, seconds: float) -> None:
        """For so long nothing of it could have been read."""
        self._grace_until += seconds
        self._credit_until += seconds
        self._measured_from += seconds
