"""How much of something is in the spool, over all processes."""

from __future__ import annotations

import threading

from gateway.core.shared_counters import Board


class Tally:
    """How much of something is in the spool, over all processes; kept in step with every transition."""

    def __init__(self, board: Board, name: str) -> None:
        self.lock = threading.Lock()
        self._cells = board.integers(name, 2)

    @property
    def files(self) -> int:
        """How many files."""
        return self._cells.total(0)

    @property
    def bytes(self) -> int:
        """How many bytes are in them."""
        return self._cells.total(1)

    def add(self, files: int, size: int) -> None:
        """Count `files` and `size` bytes more (or fewer)."""
        with self.lock:
            self._cells.mine[0] += files
            self._cells.mine[1] += size

    def reset(self) -> None:
        """Begin to count at nothing, as this process does."""
        with self.lock:
            self._cells.mine[0] = self._cells.mine[1] = 0

    def forget(self, column: int) -> None:
        """Nothing is left of what the process of a column has counted."""
        self._cells.columns[column][0] = self._cells.columns[column][1] = 0
