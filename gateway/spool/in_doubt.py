"""Names that are given and not durable yet, over all processes: nobody may take what may have to be taken back."""

from __future__ import annotations

import threading

from gateway.core.shared_counters import SharedCounters


class InDoubt:
    """Names of one stream.

    Each process writes down the order of its first such name, and nobody takes what it has given since.
    """

    def __init__(self, counters: SharedCounters, name: str) -> None:
        # 0 where there is none.
        self._first = counters.integers(name, 1)
        self._orders: set[int] = set()
        self._lock = threading.Lock()

    def begin(self, order: int) -> None:
        """A name of this order will be given."""
        with self._lock:
            self._orders.add(order)
            self._first.mine[0] = min(self._orders)

    def end(self, order: int) -> None:
        """It is durable, or gone again."""
        with self._lock:
            self._orders.discard(order)
            self._first.mine[0] = min(self._orders, default=0)

    def holds(self, order: int, column: int) -> bool:
        """Whether a name of this order, given by the process of this column, may be one of them."""
        first = self._first.columns[column][0]
        return 0 < first <= order

    def forget(self, column: int) -> None:
        """The process of a column is gone, and its names were looked after."""
        self._first.columns[column][0] = 0
