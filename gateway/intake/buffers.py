"""The two buffers that a large body is read into, one while the other is written."""

from __future__ import annotations

import mmap

from gateway.admission.memory import Share


class Buffer:
    """Memory that is taken by the bytes that come, and stays taken until it is given back.

    Attributes:
        view: all of it.
    """

    def __init__(self, size: int, share: Share) -> None:
        # Mapped, so that a client that has only announced its bytes takes none; private, so that it can be given back.
        self._mapped = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.view = memoryview(self._mapped)
        self._share = share
        self.used = 0

    def use(self, size: int) -> None:
        """Its first bytes, so many, are in use now: Overloaded if there is no memory for them."""
        if size > self.used:
            self._share.take(size - self.used)
            self.used = size

    def give_back(self) -> None:
        """What is in it is not needed any more, and for a while nothing may come."""
        self._mapped.madvise(mmap.MADV_DONTNEED)
        self._share.free(self.used)
        self.used = 0


class Buffers:
    """Both of them; the memory of one that was written is kept for what comes next, unless that is slow and memory short.

    Args:
        size: of each.
        share: of the body in the memory.
    """

    def __init__(self, size: int, share: Share) -> None:
        self._size, self._share = size, share
        self._idle: list[Buffer] = []
        self._is_short = False

    @property
    def idle_bytes(self) -> int:
        """How much could be given back at once."""
        return sum(buffer.used for buffer in self._idle)

    def next(self) -> Buffer:
        """One that is neither filled nor written; there is one as long as two are in use at most."""
        if self._idle:
            return self._idle.pop()
        return Buffer(self._size, self._share)

    def done(self, buffer: Buffer) -> None:
        """It is written."""
        self._idle.append(buffer)
        if self._is_short:
            self.give_back()

    def give_back(self) -> None:
        """Memory is short: until the body comes faster what was written stays in no buffer."""
        self._is_short = True
        for buffer in self._idle:
            buffer.give_back()

    def keep(self) -> None:
        """The body comes fast enough."""
        self._is_short = False
