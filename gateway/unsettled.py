"""Names that are given and not durable yet, over all processes: nobody may take what may have to be taken back."""

from __future__ import annotations

import threading

from gateway.board import Board


class Unsettled:
    """Names of one stream.

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
