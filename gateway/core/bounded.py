"""A mapping that forgets the oldest where it would grow beyond its bound."""

from __future__ import annotations

from itertools import islice
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Bounded(dict[K, V]):
    """A dictionary for what may be forgotten: with a further key beyond the bound the older half goes.

    Half of them at once, since to find the oldest of a dictionary whose first entries are gone takes a walk. A value that is
    set again keeps its place; only `[]` holds the bound.

    Args:
        most: how many keys there may be, at least 1.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self._most and key not in self:
            for old in list(islice(self, (self._most + 1) // 2)):
                del self[old]
        super().__setitem__(key, value)
