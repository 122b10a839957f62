"""What libraries say through `logging`, as events of the log."""

from __future__ import annotations

import logging

from gateway.log import Log


class LibraryMessages(logging.Handler):
    """Forwards what libraries say through `logging`, from warning on, as the event `library message`."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

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
        if record.exc_info and (error := record.exc_info[1]):
            fields["error"] = error
            if place := error.__traceback__:
                while place.tb_next:
                    place = place.tb_next
                fields["at"] = f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
        self._log.event("error" if record.levelno >= logging.ERROR else "warning", "library message", fields)
