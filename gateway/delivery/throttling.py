"""How fast a store is asked that says "slow down": as fast as it takes what it is asked.

A store that throttles takes some requests and not others, so that a wait that doubles with each of the others would stop a
stream that could go on. The wait follows the share of requests that were taken of late: five thousandths of a second for each
that was refused before one was taken. Where none is taken any more it grows to the longest wait within some 200 answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# By how much one answer changes the share: some twenty of them count.
_WEIGHT = 0.05
_WAIT_S = 0.005
# It is over when nearly all is taken, or when something is and for so long nothing was refused.
_ENDED = 0.98
_QUIET_S = 5.0


class Throttling:
    """What one stream has met.

    Args:
        monotonic: a clock in seconds.

    Attributes:
        is_on: whether the store throttles.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._taken = 1.0
        self._refused_at = 0.0
        self.is_on = False

    def took(self) -> None:
        """A request was taken."""
        self._taken += _WEIGHT * (1 - self._taken)
        if self.is_on and (self._taken > _ENDED or self._monotonic() - self._refused_at > _QUIET_S):
            self.is_on = False
            self._taken = 1.0

    def refused(self, most_s: float) -> float:
        """A request was refused for now; how long to wait, in seconds, at most `most_s`."""
        self._taken -= _WEIGHT * self._taken
        self._refused_at = self._monotonic()
        self.is_on = True
        return min(most_s, _WAIT_S * (1 / self._taken - 1))
