"""From an admitted request to a commit: a small report goes to its journal, anything else through a draft into the spool."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from gateway.admission.capacity import Capacity, Reservation
from gateway.core.errors import GatewayError, Overloaded
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
    at_hand,
)
from gateway.intake.buffers import Buffers
from gateway.intake.content import Chunks
from gateway.intake.pace import Pace
from gateway.intake.pipeline import Pipeline
from gateway.intake.staging import FileDraft, ReportDraft
from gateway.spool.journal import Done, Journal
from gateway.spool.spool import Spool


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
        pipeline: has the threads that write drafts.
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
        pipeline: Pipeline,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._journals = journals
        self._capacity = capacity
        self._segment_report_limit = segment_report_limit
        self._envelope = envelope
        self._times = times
        self._pipeline = pipeline
        self._monotonic = monotonic
        self._wide_bodies = 0

    # --- reports --------------------------------------------------------------------------------------------------

    async def receive_reports(self, incoming: Incoming) -> int:
        """Commit the reports of a body, all or none, and return how many; a GatewayError says why not."""
        limit = min(self._segment_report_limit, incoming.stream.max_body_bytes)
        is_small = incoming.length is not None and incoming.length <= limit and incoming.content.is_plain
        received: bytes | int | None = at_hand(incoming) if is_small else None
        if received is None:
            # A small one in one piece.
            received = await self._receive_into_draft(incoming, limit, max(PIECE_BYTES, limit + 1) if is_small else PIECE_BYTES)
        if isinstance(received, int):
            return received
        count, synced = self._commit_small(incoming, received)
        await synced
        return count

    async def _receive_into_draft(self, incoming: Incoming, limit: int, piece_bytes: int) -> bytes | int:
        """The body if it is small, decoded; or the number of its reports, committed."""
        draft, reader = ReportDraft(self._spool, incoming.content, limit, incoming.reservation), self._reader(incoming)

        def finish(rest: Chunks) -> bytes | int:
            return draft.finish(rest, incoming.stream, incoming.user, envelope=self._envelope)

        return await self._pipeline.run(incoming, reader, partial(reader.gather, piece_bytes), draft, finish)

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
            await self._pipeline.run(incoming, reader, reader.gather, draft, finish)
        else:
            with self._buffers(incoming) as buffers, incoming.large as large:
                await self._pipeline.run(incoming, reader, partial(reader.fill, large, buffers), draft, finish)
        return 1

    # --- bodies ---------------------------------------------------------------------------------------------------

    def _reader(self, incoming: Incoming) -> BodyReader:
        return BodyReader(incoming, Pace(self._times.min_bytes_per_s, self._times.timeout_s, self._monotonic))

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


def _release(more: Reservation, done: Done, error: GatewayError | None) -> None:
    more.release()
    done(error)
