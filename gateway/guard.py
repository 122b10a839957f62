"""The door: whether there is room, decided before a body is read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway import disk
from gateway.errors import GatewayError, Overloaded, SpoolBroken, SpoolFull, Stopping, TooLarge, again
from gateway.spool import Spool
from gateway.streams import Stream

# How long a look at the free space of the disk is good for. What can be written meanwhile comes out of the reserve.
ROOM_LOOK_S = 0.2
# So much of the room that a body will need is kept for it ahead of what has come of it.
PROMISED_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Room:
    """How much the gateway may hold.

    Attributes:
        quota: bytes of received data in the spool, 0 for no bound.
        reserve: bytes of the disk that only aggregation may use.
        pending_bytes: bytes of memory for bodies on their way to the disk.
        held_bytes: up to this size a body is held in memory whole.
        streamed_bytes: what a larger one, or one of unknown size, takes on its way to the disk.
    """

    quota: int
    reserve: int
    pending_bytes: int
    held_bytes: int
    streamed_bytes: int


class Ticket:
    """What one admitted body takes, given back when it is done.

    Counted is what has come, and a little of the room that it will need: a client that only says how much it will send,
    and then sends a byte a second, must not keep others out.
    """

    __slots__ = ("_came", "_guard", "_left", "_most", "memory")

    def __init__(self, guard: Guard, most: int, length: int) -> None:
        self._guard = guard
        # Of the body so much is in memory at most, and so much has come of that.
        self._most, self._came = most, 0
        self._left = length
        self.memory = 0

    @property
    def promised(self) -> int:
        """Bytes of the disk that are kept for it."""
        return min(self._left, PROMISED_BYTES)

    def took(self, size: int) -> None:
        """So many bytes of the body have come: Overloaded if others leave no memory for them."""
        more = min(size, self._most - self._came)
        if more:
            self.take_memory(more)
            self._came += more

    def take_memory(self, size: int) -> None:
        """So much more memory is taken, by the body or by a decoder's window: Overloaded if others leave none for it."""
        self._guard.check_memory(size, own=self.memory)
        self._guard.memory_bytes += size
        self.memory += size

    def written(self, size: int) -> None:
        """So many of the bytes are on the disk now, where the free space tells of them."""
        before = self.promised
        self._left = max(0, self._left - size)
        self._guard.promised_bytes -= before - self.promised

    def check_room(self) -> None:
        """In the middle of a body of unknown length: SpoolFull if the disk has become full."""
        self._guard.check_room(0)

    def __enter__(self) -> Ticket:
        self._guard.promised_bytes += self.promised
        self._guard.bodies += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.memory_bytes -= self.memory
        self._guard.promised_bytes -= self.promised
        self._guard.bodies -= 1


class Guard:
    """Decides on each request from its head alone.

    Args:
        spool: whose room is asked.
        room: the bounds.
        faults: for each stream that has a writer, what keeps that from writing, None if nothing does.
    """

    def __init__(
        self,
        spool: Spool,
        room: Room,
        faults: Mapping[str, Callable[[], GatewayError | None]],
        *,
        free_bytes: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._room = room
        self._faults = faults
        self._free_bytes = free_bytes or (lambda: disk.free_bytes(spool.root))
        self._monotonic = monotonic
        self._free = 0
        self._looked_at = float("-inf")
        self.stopping = False
        self.memory_bytes = 0
        self.promised_bytes = 0
        self.bodies = 0

    def admit(self, stream: Stream, length: int | None) -> Ticket:
        """Let a body in.

        Args:
            stream: where it wants to go.
            length: its Content-Length, None if it is not known.

        Raises:
            Stopping, TooLarge, Overloaded, SpoolFull, SpoolBroken: see `errors.py`.
        """
        memory = self._room.streamed_bytes
        if length is not None:
            memory = length if length <= self._room.held_bytes else min(length, memory)
        self._check(stream, length or 0, memory)
        return Ticket(self, memory, length or 0)

    def hold(self, stream: Stream, length: int) -> None:
        """Let a small body in that has come whole, and count it until `let_go`; raises as `admit` does."""
        self._check(stream, length, length)
        self.memory_bytes += length
        self.promised_bytes += length
        self.bodies += 1

    def let_go(self, length: int) -> None:
        """A body that was held is synced, or kept out of the spool."""
        self.memory_bytes -= length
        self.promised_bytes -= length
        self.bodies -= 1

    def _check(self, stream: Stream, length: int, memory: int) -> None:
        if self.stopping:
            raise Stopping("the gateway is stopping; send it to another, or again in a moment")
        fault_of = self._faults.get(stream.name)
        if fault_of is not None and (fault := fault_of()) is not None:
            raise again(fault)
        if length > stream.max_body_bytes:
            raise too_large(stream.max_body_bytes)
        self.check_memory(memory)
        self.check_room(length)

    def check_memory(self, more: int, own: int = 0) -> None:
        """Overloaded if there is no memory for so much more of a body, and it is others that have taken it."""
        if self.memory_bytes > own and self.memory_bytes + more > self._room.pending_bytes:
            raise Overloaded("too many bodies are being received")

    def check_room(self, size: int) -> None:
        """SpoolFull if the quota, or the disk less its reserve, has no room for `size` bytes more."""
        wanted = size + self.promised_bytes
        if self._room.quota and self._spool.census.used_bytes() + wanted > self._room.quota:
            raise SpoolFull("the spool has reached its quota")
        now = self._monotonic()
        if now - self._looked_at > ROOM_LOOK_S:
            try:
                self._free = self._free_bytes()
            except OSError as error:
                raise SpoolBroken(f"the disk cannot be asked for its room ({error.strerror or error})") from error
            self._looked_at = now
        if self._free - self._room.reserve < max(wanted, 1):
            raise SpoolFull("the disk has no room")

    def refusal(self) -> list[str]:
        """Why a small request would be refused now; empty when it would be let in."""
        reasons = []
        if self.stopping:
            reasons.append("stopping")
        for name, fault in self._faults.items():
            error = fault()
            if error is not None:
                reasons.append(f"{name}: {error}")
        try:
            self.check_room(1)
        except (SpoolFull, SpoolBroken) as error:
            reasons.append(str(error))
        return reasons


def too_large(max_bytes: int) -> TooLarge:
    """The error for a body over its limit."""
    return TooLarge(f"the body is larger than the {max_bytes} bytes that are allowed")
