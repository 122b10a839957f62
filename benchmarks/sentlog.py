"""Counts what a gateway's log says was sent, as the log grows."""

from __future__ import annotations

import re
from pathlib import Path

_SENT = re.compile(rb" object delivered .*\bitems=(\d+)")


class Sent:
    """How much a gateway has sent.

    Attributes:
        items: reports and specimens, up to the last look.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0
        self.items = 0

    def look(self) -> int:
        """Read what is new, up to the last whole line, and return how many items were sent so far."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self.items += sum(int(items) for items in _SENT.findall(whole))
        return self.items
