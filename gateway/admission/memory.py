"""Memory for bodies on their way to the disk: how much of it is taken, and how it is freed when it is short.

What is held of a body while its client is waited for can be written to its draft early; beyond half of the memory that is
asked of bodies that have held something for a while, and of all of them where somebody finds no memory. What cannot be
written, the window of a decoder, is freed by ending the body: the slowest of those that are slow, and none else.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from gateway.core.errors import Overloaded

# Beyond half of the memory a body is asked to write what it has held for so long, and this is looked at so often.
HELD_S = 1.0
RELIEF_PAUSE_S = 0.25
# Where nothing was left to be written for so long, the slowest body ends if it has come slower than this.
WRITTEN_S = 1.0
SLOW_BYTES_PER_S = 4096


class Share:
    """What one body takes of the memory.

    Attributes:
        bytes: so much.
        held_since: since when something of it waits for more from the client.
        write_early: has that written to the disk; None while there is nothing to be written.
        end: ends the body for want of memory; None while it does not wait for its client.
        speed: bytes a second that came of late; None if it is too early to say.
    """

    __slots__ = ("_memory", "bytes", "end", "held_since", "speed", "write_early")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.bytes = 0
        self.held_since = 0.0
        self.write_early: Callable[[], None] | None = None
        self.end: Callable[[], None] | None = None
        self.speed: Callable[[], float | None] = _unknown

    def watch(self, speed: Callable[[], float | None]) -> None:
        """The body comes in pieces, at this speed: from now on memory can be freed of it."""
        self.speed = speed
        self._memory.watch(self)

    def take(self, size: int) -> None:
        """So much more is taken: Overloaded if others leave none for it."""
        self._memory.check(size, own=self.bytes)
        self._memory.bytes += size
        self.bytes += size
        self._memory.ease()

    def free(self, size: int) -> None:
        """So much of it is free again."""
        size = min(size, self.bytes)
        self._memory.bytes -= size
        self.bytes -= size


class Memory:
    """The memory of all bodies.

    Args:
        max_bytes: how much of it there is.
    """

    def __init__(self, max_bytes: int, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._monotonic = monotonic
        self._shares: set[Share] = set()
        self._eased_at = self._written_at = float("-inf")

    def watch(self, share: Share) -> None:
        """See `Share.watch`; until `end`."""
        self._shares.add(share)

    def end(self, share: Share) -> None:
        """The body is done, watched or not."""
        self._shares.discard(share)
        share.free(share.bytes)

    def check(self, more: int, own: int = 0) -> None:
        """Overloaded if there is no memory for so much more of a body, and it is others that have taken it."""
        if self.bytes > own and self.bytes + more > self._max_bytes:
            self._relieve()
            raise self.shortage()

    def shortage(self) -> Overloaded:
        """The error for a body that finds no memory."""
        return Overloaded(
            f"too many bodies are being received: they take {self.bytes} bytes of memory, "
            f"and limits.pending_bytes is {self._max_bytes}"
        )

    def ease(self) -> None:
        """Before the memory is short, have those written that have held something for a while."""
        if 2 * self.bytes <= self._max_bytes:
            return
        now = self._monotonic()
        if now - self._eased_at >= RELIEF_PAUSE_S:
            self._eased_at = now
            self._write_early(now, now - HELD_S)

    def _relieve(self) -> None:
        now = self._monotonic()
        if not self._write_early(now, now) and now - self._written_at >= WRITTEN_S:
            self._end_the_slowest()

    def _write_early(self, now: float, before: float) -> bool:
        asked = [share.write_early for share in self._shares if share.write_early and share.held_since <= before]
        for write_early in asked:
            write_early()
        if asked:
            self._written_at = now
        return bool(asked)

    def _end_the_slowest(self) -> None:
        speeds = [
            (speed, share.end) for share in self._shares if share.bytes and share.end and (speed := share.speed()) is not None
        ]
        if speeds:
            speed, end = min(speeds, key=lambda each: each[0])
            if speed < SLOW_BYTES_PER_S:
                end()


def _unknown() -> None:
    """Of a body that is not watched, or not yet."""
