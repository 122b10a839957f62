"""Numbers that all processes of one gateway see.

Each process writes a column of its own and reads those of all, so that no lock is needed between processes, and what one of
them has counted stays counted when it dies. A gateway that is one process has one column.
"""

from __future__ import annotations

import mmap
import os
import zlib
from dataclasses import dataclass

_CELL_BYTES = 8
# Of counters for a handful of streams.
CELLS = 1024
# What every gateway counts, and what it counts of each stream.
_OWN_CELLS, _STREAM_CELLS = 512, 128


def cells_for(streams: int) -> int:
    """How many cells so many streams need."""
    return max(CELLS, _OWN_CELLS + streams * _STREAM_CELLS)


@dataclass(frozen=True, slots=True)
class Integers:
    """Some cells of 64 bits.

    Attributes:
        mine: those of this process's column; to be written by one thread at a time.
        columns: the same cells of every column.
    """

    mine: memoryview[int]
    columns: tuple[memoryview[int], ...]

    def total(self, at: int = 0) -> int:
        """The sum of a cell over all columns."""
        return sum([column[at] for column in self.columns])


@dataclass(frozen=True, slots=True)
class Floats:
    """Like `Integers`, for floating point numbers."""

    mine: memoryview[float]
    columns: tuple[memoryview[float], ...]

    def total(self, at: int = 0) -> float:
        """The sum of a cell over all columns."""
        return sum([column[at] for column in self.columns])


class SharedCounters:
    """Columns of cells in memory that can be shared with other processes; every cell begins as 0.

    Its descriptor is None where there is but one column.

    Args:
        columns: how many processes there may be.
        column: which one is this process's.
        descriptor: of another process's counters, None for a new one.
        cells: of a column; the same in all processes.
    """

    def __init__(self, columns: int = 1, *, column: int = 0, descriptor: int | None = None, cells: int = CELLS) -> None:
        self.descriptor = descriptor
        self._cells = cells
        self._column_bytes = cells * _CELL_BYTES
        if descriptor is None and columns > 1:
            self.descriptor = os.memfd_create("counters", os.MFD_CLOEXEC)
            os.ftruncate(self.descriptor, columns * self._column_bytes)
        # Without a descriptor it is memory of this process alone.
        self._memory = memoryview(mmap.mmap(-1 if self.descriptor is None else self.descriptor, columns * self._column_bytes))
        self._columns = columns
        self._column = column
        self._taken = 0
        # Of the names that were taken, in their order: processes that share them have taken the same.
        self.layout = 0

    def integers(self, name: str, count: int) -> Integers:
        """Take the next `count` cells for numbers that are called so."""
        found = tuple(view.cast("q") for view in self._take(name, count))
        return Integers(found[self._column], found)

    def floats(self, name: str, count: int) -> Floats:
        """Take the next `count` cells for numbers that are called so."""
        found = tuple(view.cast("d") for view in self._take(name, count))
        return Floats(found[self._column], found)

    def _take(self, name: str, count: int) -> list[memoryview]:
        start, self._taken = self._taken, self._taken + count
        if self._taken > self._cells:
            raise ValueError(f"there is room for {self._cells} cells")
        self.layout = zlib.crc32(f"{name} {count};".encode(), self.layout)
        offsets = [column * self._column_bytes + start * _CELL_BYTES for column in range(self._columns)]
        return [self._memory[offset : offset + count * _CELL_BYTES] for offset in offsets]
