"""A failure that repeats, logged without flooding the log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from gateway.telemetry.log import Log


class Repeated:
    """A failure that repeats: logged when it begins, as a count while it lasts, and when it ends.

    One that goes on as another `kind` of failure is logged at once, since another person may have to act.
    For one thread at a time.

    Args:
        log: where it is logged.
        failed_event: the event at the beginning and, with `count` and `duration_s`, while it lasts.
        ended_event: the event at the end, at info, with the whole `count` and `duration_s`.
        level: the level of the failure.
        interval_s: the least time between two lines of one kind while it lasts.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        log: Log,
        failed_event: str,
        ended_event: str,
        *,
        level: str = "warning",
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._level = log, level
        self._failed_event, self._ended_event = failed_event, ended_event
        self._interval_s, self._clock = interval_s, clock
        self._count = 0
        self._began_s = 0.0
        self._told_s: dict[object, float] = {}

    def failed(self, **fields: object) -> None:
        """Note a failure, the first or one more."""
        now_s, kind = self._clock(), fields.get("kind")
        self._count += 1
        if self._count == 1:
            self._began_s = now_s
        elif now_s - self._told_s.get(kind, -math.inf) < self._interval_s:
            return
        else:
            fields |= {"count": self._count, "duration_s": now_s - self._began_s}
        self._told_s[kind] = now_s
        self._log.event(self._level, self._failed_event, fields)

    def ended(self, **fields: object) -> None:
        """Note a success; it is logged only if there was a failure before it."""
        if self._count:
            fields |= {"count": self._count, "duration_s": self._clock() - self._began_s}
            self._log.event("info", self._ended_event, fields)
            self._count = 0
            self._told_s.clear()


class Defect:
    """A defect that every further attempt would meet again: logged where it begins, and once more only after a success.

    Args:
        log: gets the event `defect`.
        where: what was attempted.
    """

    def __init__(self, log: Log, where: str) -> None:
        self._log, self._where = log, where
        self._is_there = False

    def met(self, error: Exception) -> None:
        """Note that an attempt met it."""
        if not self._is_there:
            self._log.error("defect", where=self._where, reason=repr(error))
        self._is_there = True

    def ended(self) -> None:
        """Note a success."""
        self._is_there = False
