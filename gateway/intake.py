"""From an admitted request to a commit: the way of a body through memory, or through a draft, into the spool."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import TypeVar

import aiohttp
from aiohttp.web import RequestPayloadError

from gateway.content import Decoder, decoder
from gateway.drafts import Chunks, Draft, FileDraft, ReportDraft, check_enveloped, envelope_parts
from gateway.errors import BadRequest, BodyTimeout, ClientGone, GatewayError, Overloaded
from gateway.forms import form_of, largest_body
from gateway.guard import Ticket, too_large
from gateway.journal import Done, Journal
from gateway.largebody import LargeBody
from gateway.reportlines import DocumentFolder, Folder, NdjsonFolder, document_line, is_ndjson, ndjson_lines
from gateway.spool import Spool
from gateway.streams import Stream

T = TypeVar("T")
Chunk = TypeVar("Chunk", bytes, memoryview)
# Of a body, and whether it is the last one, which may be empty.
Piece = tuple[Chunks, bool]

# How much is handed to a thread at a time. Two such pieces of a body are in memory: one on its way to the disk, and one
# that gathers meanwhile.
PIECE_BYTES = 256 * 1024
# With what aiohttp reads ahead.
STREAMED_BODY_BYTES = 2 * PIECE_BYTES + 256 * 1024
# Each piece costs the waking of a thread: those of a file of so many bytes are wider, for so many such files at once.
WIDE_PIECE_BYTES = 1 << 20
WIDE_BODY_BYTES = 8 << 20
WIDE_BODIES = 4


@dataclass(slots=True)
class Incoming:
    """An admitted body.

    Attributes:
        stream: where it goes.
        user: who sends it.
        uri: what a file is called; empty for reports, and where a form is to say it.
        content_type: as claimed; of a form that of what it holds, once that has come.
        undo: undoes the Content-Encoding; None where there is none.
        length: the Content-Length, None if it is not known.
        body: the bytes as they come.
        ticket: what it may take.
        large: what reads the same bytes past the parser, where that can be; then `body` is left alone.
        boundary: of the form that the body is; None where it is none.
        received_bytes: of the body so far, as sent.
    """

    stream: Stream
    user: str
    uri: str
    content_type: str
    undo: Decoder | None
    length: int | None
    body: aiohttp.StreamReader
    ticket: Ticket
    large: LargeBody | None = None
    boundary: bytes | None = None
    received_bytes: int = 0

    @property
    def max_bytes(self) -> int:
        """Of the body, decoded."""
        return largest_body(self.stream, self.boundary)


class Intake:
    """Takes bodies in.

    Args:
        spool: where files are committed.
        journals: for each report stream the writer of its segments.
        segment_report_limit: bytes up to which a report goes into a segment.
        envelope: whether reports are put into one.
        body_timeout_s: how long a client may be silent in the middle of a body.
        executor: the threads that write drafts.
    """

    def __init__(
        self,
        spool: Spool,
        journals: Mapping[str, Journal],
        *,
        segment_report_limit: int,
        envelope: bool,
        body_timeout_s: float,
        executor: Executor,
    ) -> None:
        self._spool = spool
        self._journals = journals
        self._segment_report_limit = segment_report_limit
        self._envelope = envelope
        self._body_timeout_s = body_timeout_s
        self._executor = executor
        self._wide_bodies = 0

    # --- reports --------------------------------------------------------------------------------------------------

    async def receive_reports(self, incoming: Incoming) -> int:
        """Commit the reports of a body, all or none, and return how many; a GatewayError says why not."""
        limit = min(self._segment_report_limit, incoming.stream.max_body_bytes)
        form = form_of(incoming.stream, incoming.boundary)
        if incoming.length is not None and incoming.length <= limit and incoming.undo is None and form is None:
            body = self._at_hand(incoming)
            if body is None:
                body = b"".join([chunk async for chunk in self._chunks(incoming)])
            count, synced = self._commit_small(incoming, body)
            await synced
            return count

        def new_folder() -> Folder:
            claimed = incoming.content_type if form is None else form.content_type
            return NdjsonFolder() if is_ndjson(claimed) else DocumentFolder()

        draft = ReportDraft(self._spool, _decoder(incoming), new_folder, limit, form)

        def finish(rest: Chunks) -> bytes | int:
            return draft.finish(rest, incoming.stream, incoming.user, envelope=self._envelope)

        result = await self._receive(incoming, draft, finish, partial(self._gather, incoming))
        if isinstance(result, int):
            return result
        if form is not None:
            incoming.content_type = form.content_type
        count, synced = self._commit_small(incoming, result)
        await synced
        return count

    @staticmethod
    def _at_hand(incoming: Incoming) -> bytes | None:
        """The body if it came with the head, as small bodies do: then there is nothing to wait for, and no timeout to set."""
        body = incoming.body
        if not body.is_eof() or body.exception() is not None:
            return None
        data = body.read_nowait(-1)
        incoming.received_bytes = len(data)
        incoming.ticket.took(len(data))
        return data

    def _commit_small(self, incoming: Incoming, body: bytes) -> tuple[int, asyncio.Future[None]]:
        """The number of reports, and what is done when they are synced."""
        synced: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: GatewayError | None) -> None:
            if synced.cancelled():
                return
            if error is None:
                synced.set_result(None)
            else:
                synced.set_exception(error)

        lines = ndjson_lines(body) if is_ndjson(incoming.content_type) else [document_line(body)]
        self._append(incoming.stream, incoming.user, len(body), lines, done)
        return len(lines), synced

    def commit_document(self, stream: Stream, user: str, body: bytes, done: Done) -> None:
        """Have a small report written.

        Args:
            stream: where it goes.
            user: who sends it.
            body: one JSON document, decoded.
            done: called in the event loop's thread once it is synced, or with what kept it out.

        Raises:
            BadRequest, TooLarge, Overloaded, SpoolFull, SpoolBroken: nothing was taken, and `done` is not called.
        """
        self._append(stream, user, len(body), [document_line(body)], done)

    def _append(self, stream: Stream, user: str, size: int, lines: list[bytes], done: Done) -> None:
        # One instant decides the segment, the hour of the key and `received_at`.
        received = self._spool.timestamps.now()
        if self._envelope:
            prefix, suffix = parts = envelope_parts(user, received)
            check_enveloped(size, len(lines), parts, stream.max_body_bytes)
            lines = [prefix + line[:-1] + suffix + b"\n" for line in lines]
        self._journals[stream.name].append(received, lines[0] if len(lines) == 1 else b"".join(lines), done)

    # --- files ----------------------------------------------------------------------------------------------------

    async def receive_file(self, incoming: Incoming) -> int:
        """Commit the body as a file, and return 1; a GatewayError says why not."""
        form = form_of(incoming.stream, incoming.boundary)
        draft = FileDraft(self._spool, incoming.undo if form is None else _decoder(incoming), form)

        def finish(rest: Chunks) -> None:
            draft.finish(
                rest,
                incoming.stream,
                identity=os.urandom(16).hex(),
                user=incoming.user,
                uri=incoming.uri,
                claimed_type=incoming.content_type,
            )

        if incoming.large is None:
            await self._receive(incoming, draft, finish, partial(self._gather, incoming))
        else:
            with self._buffers(incoming) as buffers, incoming.large as large:
                await self._receive(incoming, draft, finish, partial(self._fill, incoming, large, cycle(buffers)))
        return 1

    # --- bodies ---------------------------------------------------------------------------------------------------

    async def _receive(
        self, incoming: Incoming, draft: Draft, finish: Callable[[Chunks], T], next_piece: Callable[[], Awaitable[Piece]]
    ) -> T:
        try:
            rest = await self._feed(incoming, draft, next_piece)
            incoming.ticket.written(incoming.received_bytes)
            return await _finished(self._in_thread(lambda: finish(rest)))
        except BaseException:
            # What kept the body out is what its sender is told; a draft that cannot be removed is erased at the next start.
            with contextlib.suppress(OSError):
                await _finished(self._in_thread(draft.discard))
            raise

    async def _feed(self, incoming: Incoming, draft: Draft, next_piece: Callable[[], Awaitable[Piece]]) -> Chunks:
        """Read while the piece before is being written, and return the last piece."""
        writing: asyncio.Future[None] | None = None
        try:
            while True:
                piece, is_last = await next_piece()
                if is_last:
                    break
                if writing is not None:
                    await _finished(writing)
                    incoming.ticket.check_room()
                elif incoming.undo is not None:
                    # Now, and not at the door: a few heads must not take the memory of bodies that come.
                    incoming.ticket.take_memory(incoming.undo.memory_bytes)
                incoming.ticket.written(sum(map(len, piece)))
                writing = self._in_thread(partial(draft.feed, piece))
        finally:
            # Also when the client is gone: the draft must not be discarded under a thread that writes it.
            if writing is not None:
                await _over(writing)
        if writing is not None:
            writing.result()
        return piece

    async def _gather(self, incoming: Incoming) -> Piece:
        """Wait for the next piece of a body, in the chunks in which it comes."""
        gathered: list[bytes] = []
        size = 0
        while size < PIECE_BYTES:
            chunk = await self._next(incoming, incoming.body.readany())
            if not chunk:
                return gathered, True
            gathered.append(chunk)
            size += len(chunk)
        return gathered, False

    async def _fill(self, incoming: Incoming, large: LargeBody, buffers: Iterator[memoryview]) -> Piece:
        """Wait for the next piece of a large body, in the buffer whose turn it is: what was in it before is written."""
        buffer = next(buffers)
        size = 0
        while size < len(buffer):
            chunk = await self._next(incoming, large.read_into(buffer[size:]))
            if not chunk:
                break
            size += len(chunk)
        return [buffer[:size]], size < len(buffer)

    @contextlib.contextmanager
    def _buffers(self, incoming: Incoming) -> Iterator[tuple[memoryview, memoryview]]:
        """Two buffers for the pieces of a large body, wide ones if there is memory for them."""
        is_wide = self._wide_bodies < WIDE_BODIES and (incoming.length or 0) >= WIDE_BODY_BYTES
        if is_wide:
            try:
                incoming.ticket.take_memory(2 * WIDE_PIECE_BYTES - STREAMED_BODY_BYTES)
            except Overloaded:
                is_wide = False
        size = WIDE_PIECE_BYTES if is_wide else PIECE_BYTES
        self._wide_bodies += is_wide
        try:
            # Mapped, so that memory is taken by the bytes that come, and not by a client that has only announced them.
            yield memoryview(mmap.mmap(-1, size)), memoryview(mmap.mmap(-1, size))
        finally:
            self._wide_bodies -= is_wide

    async def _chunks(self, incoming: Incoming) -> AsyncIterator[bytes]:
        """The body as it comes; see `_next`."""
        while chunk := await self._next(incoming, incoming.body.readany()):
            yield chunk

    async def _next(self, incoming: Incoming, reading: Awaitable[Chunk]) -> Chunk:
        """More of the body, nothing at its end; BodyTimeout when the client is silent, ClientGone when it went away."""
        try:
            async with asyncio.timeout(self._body_timeout_s):
                chunk = await reading
        except TimeoutError:
            raise BodyTimeout(f"no byte of the body came for {self._body_timeout_s:g} seconds") from None
        except RequestPayloadError as error:
            # Nothing of it is worth reading after the answer.
            incoming.body.feed_eof()
            raise BadRequest(f"the body is not as its head says: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ClientGone("the client closed the connection in the middle of the body") from error
        if chunk:
            incoming.received_bytes += len(chunk)
            limit = incoming.max_bytes
            if incoming.received_bytes > limit:
                # Decoding only ever makes a body of interest larger.
                raise too_large(limit)
            incoming.ticket.took(len(chunk))
        return chunk

    def _in_thread(self, step: Callable[[], T]) -> asyncio.Future[T]:
        """Have a thread begin with a step of a draft: at once, and not when the loop next turns."""
        return asyncio.get_running_loop().run_in_executor(self._executor, step)


async def _finished(running: asyncio.Future[T]) -> T:
    await _over(running)
    return running.result()


async def _over(running: asyncio.Future[T]) -> None:
    """Wait for a step in a thread, and never leave before it is over: the next step would meet it there."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            # Cancelled again, as a stop does, it waits again.
            cancelled = error
    # Looked at, or the loop would complain of an error that nobody takes: there may be another to be told.
    running.exception()
    if cancelled is not None:
        raise cancelled


def _decoder(incoming: Incoming) -> Decoder:
    return incoming.undo or decoder("", incoming.max_bytes)
