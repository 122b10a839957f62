"""What libraries say through `logging`, as events of the log."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

from gateway.core.bounded import Bounded
from gateway.telemetry.log import Log

# What is said of every request, while a service is away say, would drown the rest.
INTERVAL_S = 60.0
KEPT_MESSAGES = 100


class LibraryMessages(logging.Handler):
    """Forwards what libraries say through `logging`, from warning on, as the event `library message`.

    What repeats is logged once in `INTERVAL_S`, with `count` of how often it was said since the last time.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._clock = clock
        # By logger and text: when it was logged, and how often it was said since.
        self._logged: Bounded[tuple[str, str], tuple[float, int]] = Bounded(KEPT_MESSAGES)

    def install(self) -> None:
        """Take the place of the root logger's handlers; Python's own warnings come this way too."""
        logging.root.handlers[:] = [self]
        logging.root.setLevel(logging.WARNING)
        logging.captureWarnings(True)

    def emit(self, record: logging.LogRecord) -> None:
        """Forward one record, its exception and the line that raised it as fields."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 (a library's arguments may not fit its own format)
            text = str(record.msg)
        fields: dict[str, object] = {"logger": record.name, "text": text}
        said = self._said(record.name, text)
        if said == 0:
            return
        if said > 1:
            fields["count"] = said
        if record.exc_info and (error := record.exc_info[1]):
            fields["error"] = error
            if place := error.__traceback__:
                while place.tb_next:
                    place = place.tb_next
                fields["at"] = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
        self._log.event("error" if record.levelno >= logging.ERROR else "warning", "library message", fields)

    def _said(self, logger: str, text: str) -> int:
        """How often it was said, this time included, since it was logged; 0 if it is not to be logged again yet."""
        key, now = (logger, text), self._clock()
        logged_at, unsaid = self._logged.pop(key, (-math.inf, 0))
        is_due = now - logged_at >= INTERVAL_S
        self._logged[key] = (now, 0) if is_due else (logged_at, unsaid + 1)
        return unsaid + 1 if is_due else 0
