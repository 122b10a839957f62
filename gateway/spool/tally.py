"""How much of something is in the spool, over all processes."""

from __future__ import annotations

import threading

from gateway.core.shared_counters import SharedCounters


class Tally:
    """How much of something is in the spool, over all processes; kept in step with every transition."""

    def __init__(self, counters: SharedCounters, name: str) -> None:
        self.lock = threading.Lock()
        self._cells = counters.integers(name, 3)

    @property
    def files(self) -> int:
        """How many files."""
        return self._cells.total(0)

    @property
    def bytes(self) -> int:
        """How many bytes are in them."""
        return self._cells.total(1)

    @property
    def records(self) -> int:
        """How many records are in them; 0 where the stream has no bound of them."""
        return self._cells.total(2)

    def add(self, files: int, size: int, records: int = 0) -> None:
        """Count `files`, `size` bytes and `records` more (or fewer)."""
        with self.lock:
            self._cells.mine[0] += files
            self._cells.mine[1] += size
            self._cells.mine[2] += records

    def reset(self) -> None:
        """Begin to count at nothing, as this process does."""
        with self.lock:
            self._cells.mine[0] = self._cells.mine[1] = self._cells.mine[2] = 0

    def forget(self, column: int) -> None:
        """Nothing is left of what the process of a column has counted."""
        for at in range(3):
            self._cells.columns[column][at] = 0
