"""How long to wait before the next attempt, or the next look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.core.errors import Refused, StoreError

# 2 to this power times the shortest wait is beyond any longest wait; a larger exponent would only overflow.
_MAX_DOUBLINGS = 40


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Waits in seconds: doubling from `least_s` to `most_s`; `refused_s` when a person has to change something."""

    least_s: float
    most_s: float
    refused_s: float

    def wait_s(self, failures: int, error: StoreError, random: Callable[[], float]) -> float:
        """Seconds to wait after the given number of failures in a row (1 or more).

        Half of the wait is jitter, so that gateways that failed together do not come back together.

        Args:
            failures: at least 1.
            error: the last one.
            random: gives a number in [0, 1).
        """
        longest = self.least_s * 2.0 ** min(failures - 1, _MAX_DOUBLINGS)
        ceiling = min(longest, self.refused_s if isinstance(error, Refused) else self.most_s)
        return ceiling * (0.5 + random() / 2)


class Doubling:
    """Pauses in seconds, each twice the one before, from `least_s` to `most_s`."""

    def __init__(self, least_s: float, most_s: float) -> None:
        self._least_s, self._most_s = least_s, most_s
        self.pause_s = least_s

    def next(self) -> float:
        """The pause that is due; the one after it is longer."""
        pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, self._most_s)
        return pause_s

    def reset(self) -> None:
        """Begin with the shortest again."""
        self.pause_s = self._least_s

    def stretch(self) -> None:
        """Go on with the longest."""
        self.pause_s = self._most_s
