"""What the processes of one gateway tell each other of the spool: how much is in it, and which names are not settled yet."""

from __future__ import annotations

import threading

from gateway.board import Board


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

    def forget(self, column: int) -> None:
        """Nothing is left of what the process of a column has counted."""
        self._cells.columns[column][0] = self._cells.columns[column][1] = 0


class Unsettled:
    """Names of one stream that are given and not durable yet: until then they may have to be taken back.

    Each process tells the instant of its earliest such name, and nobody takes what it has given since.
    """

    def __init__(self, board: Board, name: str) -> None:
        # 0 where there is none.
        self._earliest = board.integers(name, 1)
        self._instants: set[int] = set()
        self._lock = threading.Lock()

    def begin(self, instant: int) -> None:
        """A name of this instant will be given."""
        with self._lock:
            self._instants.add(instant)
            self._earliest.mine[0] = min(self._instants)

    def end(self, instant: int) -> None:
        """It is durable, or gone again."""
        with self._lock:
            self._instants.discard(instant)
            self._earliest.mine[0] = min(self._instants, default=0)

    def holds(self, instant: int, column: int) -> bool:
        """Whether a name of this instant, given by the process of this column, may be one of them."""
        earliest = self._earliest.columns[column][0]
        return 0 < earliest <= instant

    def forget(self, column: int) -> None:
        """The process of a column is gone, and its names were looked after."""
        self._earliest.columns[column][0] = 0
