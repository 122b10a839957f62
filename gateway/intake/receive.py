"""From an admitted request to a commit: the way of a body through memory, or through a draft, into the spool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from gateway.admission.capacity import Capacity, Reservation
from gateway.admission.descriptors import OpenFiles
from gateway.admission.write_fault import WriteFault
from gateway.core.errors import GatewayError, Overloaded, SpoolBroken, SpoolFull, Unanswerable
from gateway.core.streams import Stream
from gateway.formats.envelope import Envelope
from gateway.formats.json_lines import document_line, is_ndjson, ndjson_lines
from gateway.intake.body import (
    PIECE_BYTES,
    WIDE_BODIES,
    WIDE_BODY_BYTES,
    WIDE_PIECE_BYTES,
    BodyReader,
    Incoming,
    Piece,
    at_hand,
)
from gateway.intake.buffers import Buffers
from gateway.intake.content import Chunks
from gateway.intake.pace import Pace
from gateway.intake.staging import Draft, FileDraft, ReportDraft
from gateway.spool.journal import Done, Journal
from gateway.spool.spool import Spool

T = TypeVar("T")

# What the disk has refused, of all that ends a body.
DISK_ERRORS = (SpoolFull, SpoolBroken, Overloaded, Unanswerable)


@dataclass(frozen=True, slots=True)
class BodyTimes:
    """How long a body may take.

    Attributes:
        timeout_s: how long a client may be silent, and the grace before the rate counts.
        min_bytes_per_s: how fast the body has to come on the whole; 0 for no such bound.
    """

    timeout_s: float
    min_bytes_per_s: int = 0


class Intake:
    """Takes bodies in.

    Args:
        spool: where files are committed.
        journals: for each report stream the writer of its segments.
        capacity: where room is reserved for what is added to bodies.
        segment_report_limit: bytes up to which a report goes into a segment.
        envelope: whether reports are put into one.
        times: how long a body may take.
        executor: the threads that write drafts.
        write_fault: where their success and failure is noted.
        files: has descriptors for them.
    """

    def __init__(
        self,
        spool: Spool,
        journals: Mapping[str, Journal],
        capacity: Capacity,
        *,
        segment_report_limit: int,
        envelope: bool,
        times: BodyTimes,
        executor: Executor,
        write_fault: WriteFault,
        files: OpenFiles,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._journals = journals
        self._capacity = capacity
        self._segment_report_limit = segment_report_limit
        self._envelope = envelope
        self._times = times
        self._executor = executor
        self._write_fault = write_fault
        self._files = files
        self._monotonic = monotonic
        self._wide_bodies = 0

    # --- reports --------------------------------------------------------------------------------------------------

    async def receive_reports(self, incoming: Incoming) -> int:
        """Commit the reports of a body, all or none, and return how many; a GatewayError says why not."""
        limit = min(self._segment_report_limit, incoming.stream.max_body_bytes)
        is_small = incoming.length is not None and incoming.length <= limit and incoming.content.is_plain
        body = at_hand(incoming) if is_small else None
        if body is None:
            reader = self._reader(incoming)
            if is_small:
                piece = await reader.gather(max(PIECE_BYTES, limit + 1))
                if piece.is_last:
                    body = b"".join(piece.chunks)
                else:
                    # Memory is short, and the rest may be long in coming: it gets a file of its own.
                    reader.put_back(piece)
            if body is None:
                received = await self._receive_into_draft(incoming, reader, limit)
                if isinstance(received, int):
                    return received
                body = received
        count, synced = self._commit_small(incoming, body)
        await synced
        return count

    async def _receive_into_draft(self, incoming: Incoming, reader: BodyReader, limit: int) -> bytes | int:
        """The body if it is small, decoded; or the number of its reports, committed."""
        draft = ReportDraft(self._spool, incoming.content, limit, incoming.reservation)

        def finish(rest: Chunks) -> bytes | int:
            return draft.finish(rest, incoming.stream, incoming.user, envelope=self._envelope)

        return await self._receive(incoming, reader, draft, finish, reader.gather)

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

        lines = ndjson_lines(body) if is_ndjson(incoming.content.type) else [document_line(body)]
        self._append(incoming.stream, incoming.user, len(body), lines, done)
        return len(lines), synced

    def commit_document(self, stream: Stream, user: str, body: bytes, done: Done) -> None:
        """Have a small report written.

        Args:
            stream: where it goes.
            user: that sends it.
            body: one JSON document, decoded.
            done: called in the event loop's thread once it is synced, or with what kept it out.

        Raises:
            BadRequest, TooLarge, Overloaded, SpoolFull, SpoolBroken: nothing was taken, and `done` is not called.
        """
        self._append(stream, user, len(body), [document_line(body)], done)

    def _append(self, stream: Stream, user: str, size: int, lines: list[bytes], done: Done) -> None:
        # One instant decides the segment, the hour of the key and `received_at`.
        received = self._spool.timestamps.now()
        more: Reservation | None = None
        if self._envelope:
            envelope = Envelope(user, received)
            envelope.check(size, len(lines), stream.max_body_bytes)
            more = self._capacity.reserve_more(len(lines) * envelope.added_bytes)
            done = partial(_release, more, done)
            lines = envelope.around(lines)
        try:
            self._journals[stream.name].append(received, lines[0] if len(lines) == 1 else b"".join(lines), done)
        except BaseException:
            if more is not None:
                more.release()
            raise

    # --- files ----------------------------------------------------------------------------------------------------

    async def receive_file(self, incoming: Incoming) -> int:
        """Commit the body as a file, and return 1; a GatewayError says why not."""
        draft = FileDraft(self._spool, incoming.content, incoming.reservation)
        reader = self._reader(incoming)

        def finish(rest: Chunks) -> None:
            draft.finish(rest, incoming.stream, identity=os.urandom(16).hex(), user=incoming.user, uri=incoming.uri)

        if incoming.large is None:
            await self._receive(incoming, reader, draft, finish, reader.gather)
        else:
            with self._buffers(incoming) as buffers, incoming.large as large:
                await self._receive(incoming, reader, draft, finish, partial(reader.fill, large, buffers))
        return 1

    # --- bodies ---------------------------------------------------------------------------------------------------

    def _reader(self, incoming: Incoming) -> BodyReader:
        return BodyReader(incoming, Pace(self._times.min_bytes_per_s, self._times.timeout_s, self._monotonic))

    async def _receive(
        self,
        incoming: Incoming,
        reader: BodyReader,
        draft: Draft,
        finish: Callable[[Chunks], T],
        next_piece: Callable[[], Awaitable[Piece]],
    ) -> T:
        try:
            rest = await self._feed(incoming, reader, draft, next_piece)
            incoming.reservation.handed_on(incoming.received_bytes)
            result = await _finished(self._in_thread(lambda: finish(rest)))
        except BaseException as error:
            if isinstance(error, DISK_ERRORS) and isinstance(error.__cause__, OSError):
                self._write_fault.failed(incoming.stream, error)
            # What kept the body out is what the response says; a draft that cannot be removed is erased at the next start.
            with contextlib.suppress(OSError):
                await _finished(self._in_thread(draft.discard))
            raise
        finally:
            if reader.has_file:
                self._files.close_body()
        if not isinstance(result, bytes):
            # Else it stayed in memory, and says nothing of the disk.
            self._write_fault.succeeded()
        return result

    async def _feed(
        self, incoming: Incoming, reader: BodyReader, draft: Draft, next_piece: Callable[[], Awaitable[Piece]]
    ) -> Chunks:
        """Read while the piece before is being written, and return the last piece."""
        writing: asyncio.Future[None] | None = None
        try:
            while True:
                piece = await next_piece()
                if piece.is_last:
                    break
                if writing is not None:
                    with reader.standing():
                        await _finished(writing)
                else:
                    self._begin_draft(incoming, reader)
                incoming.reservation.handed_on(sum(map(len, piece.chunks)))
                writing = self._in_thread(partial(_feed_piece, draft, piece))
                writing.add_done_callback(partial(_written, piece))
        finally:
            # Also when the client is gone: the draft must not be discarded under a thread that writes it.
            if writing is not None:
                await _over(writing)
        if writing is not None:
            writing.result()
        return piece.chunks

    def _begin_draft(self, incoming: Incoming, reader: BodyReader) -> None:
        """What a body takes that is received for longer; now, and not at the door: a few heads must not take it from others."""
        self._files.open_body()
        reader.has_file = True
        if incoming.content.memory_bytes:
            incoming.reservation.memory.take(incoming.content.memory_bytes)

    @contextlib.contextmanager
    def _buffers(self, incoming: Incoming) -> Iterator[Buffers]:
        """Two buffers for the pieces of a large body, wide ones if there is memory for them."""
        is_wide = self._wide_bodies < WIDE_BODIES and (incoming.length or 0) >= WIDE_BODY_BYTES
        if is_wide:
            try:
                self._capacity.memory.check(2 * WIDE_PIECE_BYTES)
            except Overloaded:
                is_wide = False
        self._wide_bodies += is_wide
        try:
            yield Buffers(WIDE_PIECE_BYTES if is_wide else PIECE_BYTES, incoming.reservation.memory)
        finally:
            self._wide_bodies -= is_wide

    def _in_thread(self, step: Callable[[], T]) -> asyncio.Future[T]:
        """Have a thread begin with a step of a draft: at once, and not when the loop next turns."""
        return asyncio.get_running_loop().run_in_executor(self._executor, step)


def _release(more: Reservation, done: Done, error: GatewayError | None) -> None:
    more.release()
    done(error)


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
    # Looked at, or the loop would complain of an error that nobody takes: there may be another to be reported.
    running.exception()
    if cancelled is not None:
        raise cancelled


def _feed_piece(draft: Draft, piece: Piece) -> None:
    if piece.is_early:
        draft.spill()
    draft.feed(piece.chunks)


def _written(piece: Piece, _: asyncio.Future[None]) -> None:
    piece.written()
