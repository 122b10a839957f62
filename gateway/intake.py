"""From an admitted request to a commit: the way of a body through memory, or through a draft, into the spool."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import aiohttp
from aiohttp.web import RequestPayloadError

from gateway.content import Decoder, decoder
from gateway.drafts import Draft, FileDraft, ReportDraft, check_enveloped, envelope_parts
from gateway.errors import BadRequest, BodyTimeout, ClientGone, GatewayError
from gateway.guard import Ticket, too_large
from gateway.journal import Done, Journal
from gateway.reportlines import DocumentFolder, NdjsonFolder, document_line, ndjson_lines
from gateway.spool import Spool
from gateway.streams import Stream

T = TypeVar("T")

NDJSON = "application/x-ndjson"
# How much is handed to a thread at a time. Two such pieces of a body are in memory: one on its way to the disk, and one
# that gathers meanwhile.
PIECE_BYTES = 256 * 1024
# With what aiohttp reads ahead.
STREAMED_BODY_BYTES = 2 * PIECE_BYTES + 256 * 1024


@dataclass(slots=True)
class Incoming:
    """An admitted body.

    Attributes:
        stream: where it goes.
        user: who sends it.
        uri: what a file is called; empty for reports.
        content_type: as claimed.
        undo: undoes the Content-Encoding; None where there is none.
        length: the Content-Length, None if it is not known.
        body: the bytes as they come.
        ticket: what it may take.
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
    received_bytes: int = 0


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

    # --- reports --------------------------------------------------------------------------------------------------

    async def receive_reports(self, incoming: Incoming) -> int:
        """Commit the reports of a body, all or none, and return how many; a GatewayError says why not."""
        limit = min(self._segment_report_limit, incoming.stream.max_body_bytes)
        if incoming.length is not None and incoming.length <= limit and incoming.undo is None:
            body = self._at_hand(incoming)
            if body is None:
                body = b"".join([chunk async for chunk in self._chunks(incoming)])
            count, synced = self._commit_small(incoming, body)
            await synced
            return count
        folder = NdjsonFolder() if _is_ndjson(incoming.content_type) else DocumentFolder()
        draft = ReportDraft(self._spool, _decoder(incoming), folder, limit)

        def finish(rest: list[bytes]) -> bytes | int:
            return draft.finish(rest, incoming.stream, incoming.user, envelope=self._envelope)

        result = await self._receive(incoming, draft, finish)
        if isinstance(result, int):
            return result
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

        lines = ndjson_lines(body) if _is_ndjson(incoming.content_type) else [document_line(body)]
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
        # One instant decides the segment, the key and `received_at`. Nothing is awaited between here and the append, so
        # that instants increase along the segment.
        instant = self._spool.timestamps.next()
        if self._envelope:
            prefix, suffix = parts = envelope_parts(user, instant)
            check_enveloped(size, len(lines), parts, stream.max_body_bytes)
            lines = [prefix + line[:-1] + suffix + b"\n" for line in lines]
        self._journals[stream.name].append(instant, lines[0] if len(lines) == 1 else b"".join(lines), done)

    # --- files ----------------------------------------------------------------------------------------------------

    async def receive_file(self, incoming: Incoming) -> int:
        """Commit the body as a file, and return 1; a GatewayError says why not."""
        draft = FileDraft(self._spool, _decoder(incoming))

        def finish(rest: list[bytes]) -> None:
            draft.finish(
                rest,
                incoming.stream,
                identity=os.urandom(16).hex(),
                user=incoming.user,
                uri=incoming.uri,
                claimed_type=incoming.content_type,
            )

        await self._receive(incoming, draft, finish)
        return 1

    # --- bodies ---------------------------------------------------------------------------------------------------

    async def _receive(self, incoming: Incoming, draft: Draft, finish: Callable[[list[bytes]], T]) -> T:
        try:
            rest = await self._feed(incoming, draft)
            incoming.ticket.written(incoming.received_bytes)
            return await self._in_thread(lambda: finish(rest))
        except BaseException:
            # What kept the body out is what its sender is told; a draft that cannot be removed is erased at the next start.
            with contextlib.suppress(OSError):
                await self._in_thread(draft.discard)
            raise

    async def _feed(self, incoming: Incoming, draft: Draft) -> list[bytes]:
        """Read while the piece before is being written, and return the last piece."""
        writing: asyncio.Future[None] | None = None
        gathered: list[bytes] = []
        size = 0
        try:
            async for chunk in self._chunks(incoming):
                gathered.append(chunk)
                size += len(chunk)
                if size < PIECE_BYTES:
                    continue
                if writing is not None:
                    await writing
                    incoming.ticket.check_room()
                elif incoming.undo is not None:
                    # Now, and not at the door: a few heads must not take the memory of bodies that come.
                    incoming.ticket.take_memory(incoming.undo.memory_bytes)
                incoming.ticket.written(size)
                writing = asyncio.ensure_future(self._in_thread(partial(draft.feed, gathered)))
                gathered, size = [], 0
        finally:
            # Also when the client is gone: the draft must not be discarded under a thread that writes it.
            if writing is not None:
                await asyncio.wait([writing])
        if writing is not None:
            writing.result()
        return gathered

    async def _chunks(self, incoming: Incoming) -> AsyncIterator[bytes]:
        """The body as it comes; BodyTimeout when the client is silent, ClientGone when it went away."""
        limit = incoming.stream.max_body_bytes
        while True:
            try:
                async with asyncio.timeout(self._body_timeout_s):
                    chunk = await incoming.body.readany()
            except TimeoutError:
                raise BodyTimeout(f"no byte of the body came for {self._body_timeout_s:g} seconds") from None
            except RequestPayloadError as error:
                # Nothing of it is worth reading after the answer.
                incoming.body.feed_eof()
                raise BadRequest(f"the body is not as its head says: {error}") from error
            except (aiohttp.ClientError, ConnectionError) as error:
                raise ClientGone("the client closed the connection in the middle of the body") from error
            if not chunk:
                return
            incoming.received_bytes += len(chunk)
            if incoming.received_bytes > limit:
                # Decoding only ever makes a body of interest larger.
                raise too_large(limit)
            incoming.ticket.took(len(chunk))
            yield chunk

    async def _in_thread(self, step: Callable[[], T]) -> T:
        """Run a step of a draft in a thread, and never leave before it is over: the next step would meet it there."""
        running = asyncio.get_running_loop().run_in_executor(self._executor, step)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                # Cancelled again, as a stop does, it waits again.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([running])
            raise


def _decoder(incoming: Incoming) -> Decoder:
    return incoming.undo or decoder("", incoming.stream.max_body_bytes)


def _is_ndjson(claimed: str) -> bool:
    return "ndjson" in claimed.lower() and claimed.partition(";")[0].strip().lower() == NDJSON
