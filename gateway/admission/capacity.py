"""Whether there is room, decided before a body is read, and reserved until the body is done with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from gateway.admission.disk_room import DiskRoom
from gateway.admission.memory import Memory, Share
from gateway.core.disk import FileSystem
from gateway.core.errors import GatewayError, Overloaded, SpoolBroken, SpoolFull, Stopping, TooLarge, again
from gateway.core.streams import Stream
from gateway.spool.spool import Spool

# So much of the room that a body will need is kept for it ahead of what has come of it.
PROMISED_BYTES = 8 << 20
# A body in a file of its own, with its sidecar.
BODY_FILES = 2
# Of the small report that readiness speaks of.
SMALL_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Bounds:
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


class Reservation:
    """Room that is kept for one body, from its head until it is released; released twice it is released once.

    Args:
        memory, room: that it is a part of; checked already.
        memory_bytes: bytes of memory.
        promised_bytes: bytes of the disk.
    """

    __slots__ = ("_memory", "_memory_bytes", "_promised_bytes", "_room")

    def __init__(self, memory: Memory, room: DiskRoom, memory_bytes: int, promised_bytes: int) -> None:
        # One is made for each report of the fast lane.
        self._memory = memory
        self._room = room
        self._memory_bytes = memory_bytes
        self._promised_bytes = promised_bytes
        memory.bytes += memory_bytes
        room.promised_bytes += promised_bytes

    def release(self) -> None:
        """The body is synced, or kept out of the spool."""
        self._memory.bytes -= self._memory_bytes
        self._room.promised_bytes -= self._promised_bytes
        self._memory_bytes = self._promised_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class BodyReservation(Reservation):
    """Of a body that is read in pieces.

    Counted is what is in memory and what is written, and a little of the room that it will need: a client that only says how
    much it will send, and then sends a byte a second, must not keep others out.

    Args:
        memory, room: see `Reservation`.
        length: that was announced.

    Attributes:
        memory: its share of the memory.
    """

    __slots__ = ("_left", "memory")

    def __init__(self, memory: Memory, room: DiskRoom, length: int) -> None:
        super().__init__(memory, room, 0, min(length, PROMISED_BYTES))
        # Of the length that was announced so much has not been given to a draft.
        self._left = length
        self.memory = Share(memory)

    def received(self, size: int) -> None:
        """So many bytes of the body have come: Overloaded if others leave no memory for them."""
        self.memory.take(size)

    def handed_on(self, size: int) -> None:
        """So many of the bytes that were announced are given to a draft, which charges what it writes of them."""
        self._left = max(0, self._left - size)
        promised = min(self._left, self._promised_bytes)
        self._room.promised_bytes -= self._promised_bytes - promised
        self._promised_bytes = promised

    def charge(self, size: int) -> None:
        """So much is about to be written, see `DiskRoom.charge`; from any thread."""
        self._room.charge(size, self._promised_bytes)

    def landed(self, size: int) -> None:
        """It is written, or could not be; from any thread."""
        self._room.landed(size)

    def release(self) -> None:
        """See `Reservation.release`."""
        self._memory.end(self.memory)
        super().release()


class Capacity:
    """Reserves room for each request from its head alone.

    Args:
        spool: whose room is asked.
        bounds: how much may be held.
        faults: for each stream that has a writer, what keeps that from writing, None if nothing does.
    """

    def __init__(
        self,
        spool: Spool,
        bounds: Bounds,
        faults: Mapping[str, Callable[[], GatewayError | None]],
        *,
        look: Callable[[], FileSystem] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds = bounds
        self._faults = faults
        self._ownership = spool.ownership
        self.room = DiskRoom(spool, bounds.quota, bounds.reserve, look=look, monotonic=monotonic)
        self.memory = Memory(bounds.pending_bytes, monotonic)
        self.stopping = False

    def reserve(self, stream: Stream, length: int | None) -> BodyReservation:
        """Reserve room for a body that is to be read.

        Args:
            stream: where it wants to go.
            length: its Content-Length, None if it is not known.

        Raises:
            Stopping, TooLarge, Overloaded, SpoolFull, SpoolBroken: see `core/errors.py`.
        """
        memory = self._bounds.streamed_bytes
        if length is not None:
            memory = length if length <= self._bounds.held_bytes else min(length, memory)
        is_in_memory = stream.form.has_segments and length is not None and length <= self._bounds.held_bytes
        self._check(stream, length or 0, memory, 0 if is_in_memory else BODY_FILES)
        return BodyReservation(self.memory, self.room, length or 0)

    def reserve_whole(self, stream: Stream, length: int) -> Reservation:
        """Reserve room for a small body that has come whole; raises as `reserve` does."""
        self._check(stream, length, length, 0)
        return Reservation(self.memory, self.room, length, length)

    def reserve_more(self, size: int) -> Reservation:
        """Reserve room for what is added to a body that has its own: Overloaded or SpoolFull if there is none."""
        self.memory.check(size)
        self.room.check(size)
        return Reservation(self.memory, self.room, size, size)

    def _check(self, stream: Stream, length: int, memory: int, files: int) -> None:
        if self.stopping:
            raise Stopping("the gateway is stopping; send it to another, or again in a moment")
        if self._ownership.fault is not None:
            raise SpoolBroken(self._ownership.fault)
        fault_of = self._faults.get(stream.name)
        if fault_of is not None and (fault := fault_of()) is not None:
            raise again(fault)
        if length > stream.max_body_bytes:
            raise too_large(stream.max_body_bytes)
        self.memory.check(memory)
        self.room.check(length, files)

    def refusal(self) -> list[str]:
        """Why a small request would be refused now; empty when there is room."""
        reasons = []
        if self.stopping:
            reasons.append("stopping")
        if self._ownership.fault is not None:
            reasons.append(self._ownership.fault)
        for name, fault in self._faults.items():
            error = fault()
            if error is not None:
                reasons.append(f"{name}: {error}")
        for check, size in ((self.memory.check, SMALL_BYTES), (self.room.check, 1)):
            try:
                check(size)
            except (Overloaded, SpoolFull, SpoolBroken) as error:
                reasons.append(str(error))
        return reasons


def too_large(max_bytes: int) -> TooLarge:
    """The error for a body over its limit."""
    return TooLarge(f"the body is larger than the {max_bytes} bytes that are allowed")
