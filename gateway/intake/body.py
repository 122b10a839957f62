"""A body as it comes from its client: in pieces, within its time, and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol, Self, TypeVar

import aiohttp
from aiohttp.web import RequestPayloadError

from gateway.admission.capacity import BodyReservation, too_large
from gateway.core.errors import BadRequest, BodyTimeout, ClientGone, Overloaded
from gateway.core.streams import Stream
from gateway.intake.buffers import Buffers
from gateway.intake.content import Chunks, Content
from gateway.intake.pace import Pace
from gateway.telemetry.background import STOOD_STILL_S

Chunk = TypeVar("Chunk", bytes, memoryview)

# How much is handed to a thread at a time. Two such pieces of a body are in memory: one on its way to the disk, and one
# that gathers meanwhile.
PIECE_BYTES = 256 * 1024
# With what aiohttp reads ahead.
STREAMED_BODY_BYTES = 2 * PIECE_BYTES + 256 * 1024
# Each piece costs the waking of a thread: those of a file of so many bytes are wider, for so many such files at once.
WIDE_PIECE_BYTES = 1 << 20
WIDE_BODY_BYTES = 8 << 20
WIDE_BODIES = 4
# Chunks below this are put together as they come: an object of its own takes many times the byte that is in it.
TINY_BYTES = 4096
# How long is looked for what has come already, when the time of a client is over.
LOOK_S = 0.05


class BulkReader(Protocol):
    """Reads a large body straight into a buffer; the context is left with it, read to its end or not."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    async def read_into(self, target: memoryview) -> memoryview:
        """Put what comes next at the begin of `target`, and return that part of it; it is empty at the end of the body."""
        ...


@dataclass(slots=True)
class Incoming:
    """An admitted body.

    Attributes:
        stream: where it goes.
        user: that sends it.
        uri: what a file is called; empty for reports, and where a form is to say it.
        content: what the body holds.
        length: the Content-Length, None if it is not known.
        body: the bytes as they come.
        reservation: the room that is kept for it.
        large: reads the same bytes past the parser, where that can be; then `body` is left alone.
        received_bytes: of the body so far, as sent.
    """

    stream: Stream
    user: str
    uri: str
    content: Content
    length: int | None
    body: aiohttp.StreamReader
    reservation: BodyReservation
    large: BulkReader | None = None
    received_bytes: int = 0


def at_hand(incoming: Incoming) -> bytes | None:
    """The body if it came with the head, as small bodies do: then there is nothing to wait for, and no time to keep."""
    body = incoming.body
    if not body.is_eof() or body.exception() is not None:
        return None
    data = body.read_nowait(-1)
    incoming.received_bytes = len(data)
    incoming.reservation.received(len(data))
    return data


class Piece(NamedTuple):
    """Of a body.

    Attributes:
        chunks: may be empty for the last piece.
        is_last: whether nothing follows.
        is_early: whether it is given out before it is full, because memory is short.
        written: called in the event loop's thread once the piece is in its draft.
    """

    chunks: Chunks
    is_last: bool = False
    is_early: bool = False
    written: Callable[[], object] = lambda: None


class BodyReader:
    """Reads one body.

    Attributes:
        has_file: whether it is written to a file meanwhile, which is among `OpenFiles.bodies`.

    Args:
        incoming: the body.
        pace: the time that it has.
    """

    def __init__(self, incoming: Incoming, pace: Pace) -> None:
        self._incoming = incoming
        self._pace = pace
        self._share = incoming.reservation.memory
        self._share.watch(pace.speed)
        # The timeout under which the client is waited for, and what the memory has asked for since the last piece: what is
        # held early, the end of the body.
        self._limit: asyncio.Timeout | None = None
        self._is_asked = self._is_ended = False
        # Whether its time was over, and it was looked once what had come by then.
        self._has_looked = False
        self.has_file = False

    async def gather(self, piece_bytes: int = PIECE_BYTES) -> Piece:
        """Wait for the next piece, of about so many bytes, in the chunks in which it comes."""
        gathered: list[bytes | memoryview] = []
        tiny = bytearray()
        size = 0
        self._share.held_since = 0.0
        while size < piece_bytes:
            chunk = await self._next(self._incoming.body.readany, held=size)
            if chunk is None:
                break
            if not chunk:
                self._check_length()
                return Piece(_with(gathered, tiny), is_last=True)
            self._share.take(len(chunk))
            size += len(chunk)
            if len(chunk) < TINY_BYTES:
                tiny += chunk
            else:
                gathered = _with(gathered, tiny)
                gathered.append(chunk)
                tiny = bytearray()
            if self._was_asked():
                break
        return Piece(_with(gathered, tiny), is_early=size < piece_bytes, written=partial(self._share.free, size))

    async def fill(self, large: BulkReader, buffers: Buffers) -> Piece:
        """Wait for the next piece of a large body, in a buffer that is not being written."""
        buffer = buffers.next()
        view, size = buffer.view, 0
        self._share.held_since = 0.0
        while size < len(view):
            chunk = await self._next(partial(large.read_into, view[size:]), held=size or buffers.idle_bytes)
            if chunk is not None:
                if not chunk:
                    self._check_length()
                    return Piece([view[:size]], is_last=True)
                size += len(chunk)
                buffer.use(size)
            if chunk is None or self._was_asked():
                buffers.give_back()
                if size:
                    return Piece([view[:size]], is_early=True, written=partial(buffers.done, buffer))
        buffers.keep()
        return Piece([view], written=partial(buffers.done, buffer))

    def standing(self) -> AbstractContextManager[None]:
        """For as long as this lasts the client waits for the gateway."""
        return self._pace.standing()

    async def _next(self, read: Callable[[], Awaitable[Chunk]], *, held: int) -> Chunk | None:
        """More of the body, nothing at its end; None where what is held is wanted early.

        What has come is read before the time of a client counts as over: there is one short look, and all of its time once
        more where nobody could have read for long.

        Raises:
            BodyTimeout: the client is silent, or too slow.
            ClientGone: it went away.
            Overloaded: it is slow, and memory is short.
        """
        silence_s, left_s = self._pace.timeout_s, self._pace.left_s()
        if left_s > 0:
            self._has_looked = False
        loop, patience_s, is_look = asyncio.get_running_loop(), max(0.0, min(silence_s, left_s)), False
        has_stood_still = False
        while True:
            due = loop.time() + patience_s
            chunk = await self._read(read, due, held)
            late_s = loop.time() - due
            if late_s > LOOK_S:
                self._pace.stood_still(late_s)
            if chunk is not None:
                break
            if self._is_ended:
                raise Overloaded("memory is short, and this body comes more slowly than any other: send it again later")
            if self._was_asked():
                return None
            if late_s > STOOD_STILL_S and not has_stood_still:
                patience_s, is_look, has_stood_still = silence_s, False, True
            elif is_look or (left_s <= 0 and self._has_looked):
                raise self._too_slow(silence_s <= left_s)
            else:
                patience_s, is_look = LOOK_S, True
                self._has_looked = left_s <= silence_s
        if chunk:
            self._count(len(chunk))
        return chunk

    async def _read(self, read: Callable[[], Awaitable[Chunk]], due: float, held: int) -> Chunk | None:
        """What comes until then, by the clock of the loop; None if nothing does, or the memory asks for something."""
        share = self._share
        try:
            async with asyncio.timeout_at(due) as self._limit:
                share.end = self._end
                if held:
                    share.held_since = share.held_since or time.monotonic()
                    share.write_early = self._write_early
                return await read()
        except TimeoutError:
            return None
        except RequestPayloadError as error:
            # Nothing of it is worth reading after the answer.
            self._incoming.body.feed_eof()
            raise BadRequest(f"the body is not as its head says: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ClientGone("the client closed the connection in the middle of the body") from error
        finally:
            share.write_early = share.end = None

    def _too_slow(self, is_silent: bool) -> BodyTimeout:
        if is_silent:
            return BodyTimeout(f"no byte of the body came for {self._pace.timeout_s:g} seconds")
        return BodyTimeout(
            f"the body comes more slowly than {self._pace.min_bytes_per_s} bytes a second, the least that "
            "limits.body_min_rate allows"
        )

    def _check_length(self) -> None:
        """At the end: a body shorter than its announced length is never kept as if it were whole, wherever the rest was lost."""
        length, received = self._incoming.length, self._incoming.received_bytes
        if length is not None and received != length:
            raise BadRequest(f"the body ended after {received} bytes, and its Content-Length is {length}")

    def _count(self, size: int) -> None:
        incoming = self._incoming
        incoming.received_bytes += size
        limit = incoming.content.max_body_bytes
        if incoming.received_bytes > limit:
            # Decoding only ever makes a body of interest larger.
            raise too_large(limit)
        self._pace.came(size)

    # --- what the memory asks for, in the event loop's thread -----------------------------------------------------------

    def _write_early(self) -> None:
        self._is_asked = True
        self._share.write_early = None
        self._share.held_since = 0.0
        self._wake()

    def _end(self) -> None:
        self._is_ended = True
        self._share.end = None
        self._wake()

    def _was_asked(self) -> bool:
        """Whether what is held is wanted early, which is then forgotten."""
        was_asked, self._is_asked = self._is_asked, False
        return was_asked

    def _wake(self) -> None:
        assert self._limit is not None  # asked while the client is waited for
        if not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())


def _with(gathered: list[bytes | memoryview], tiny: bytearray) -> list[bytes | memoryview]:
    return [*gathered, memoryview(tiny)] if tiny else gathered
