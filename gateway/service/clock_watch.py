"""Steps of the machine's clock, logged: what comes is filed under the time that the clock says, be it right or wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.telemetry.log import Log

LOOK_S = 1.0
# A clock that is only corrected runs a little faster or slower, by less than a thousandth.
LEAST_STEP_S = 0.5


class ClockWatch:
    """Compares the clock with one that nobody sets and that goes on while the machine is suspended.

    Args:
        log: where steps are logged.
        clock: seconds since the epoch.
        steady: seconds since the machine was started.
    """

    def __init__(
        self,
        log: Log,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        self._log = log
        self._clock = clock
        self._steady = steady
        self._offset_s = clock() - steady()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Log a step that came since the last look, with its size: below 0 where the clock was set back."""
        offset_s = self._clock() - self._steady()
        step_s, self._offset_s = offset_s - self._offset_s, offset_s
        if abs(step_s) >= LEAST_STEP_S:
            self._log.warning("clock stepped", step_s=round(step_s, 3))
