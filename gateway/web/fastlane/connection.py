"""The fast lane: a complete, plain, small report is answered without waking a task.

A connection looks at its bytes before aiohttp does. As long as every request on it has been exactly one plain report, the
head is read by a strict grammar, the body goes to the journal, and all that one sync made durable are answered together.
At the first doubt the bytes, and all that follow on this connection, are aiohttp's: its parser cannot be asked what it has
begun.

Nothing is decided here. Room, what a report is and what a commit is are asked of `Capacity` and `Intake`, and whatever
would be answered with an error is left to the ordinary lane, which finds the same error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp.helpers import rfc822_formatted_time

from gateway.admission.capacity import BodyReservation, Capacity, Reservation
from gateway.core.errors import GatewayError, Unanswerable
from gateway.core.streams import Stream
from gateway.intake.receive import Intake
from gateway.web.connection import SERVER, Connection, Server
from gateway.web.fastlane.head import Heads, PlainHead
from gateway.web.request import request_id_of

# How long a head waits here for its body before it is aiohttp's, whose own timeout begins then.
HOLD_S = 1.0


# Of a report that was synced and answered with 204: its head, the id it was answered with, the seconds from its head to its
# answer, and the address of its sender. A plain tuple because one is made for each report.
Answered = tuple[PlainHead, str, float, str | None]


class FastLane:
    """What the connections of one gateway share.

    Args:
        streams: the table.
        capacity: reserves room.
        intake: commits.
        report: logs and counts what was answered.
        report_unanswered: logs a report, by its request's id, that nobody may be answered about.
        max_length: the largest body.
        on_begin, on_end: called around each request, as the ordinary lane counts its own.
    """

    def __init__(
        self,
        streams: tuple[Stream, ...],
        capacity: Capacity,
        intake: Intake,
        report: Callable[[Sequence[Answered]], None],
        report_unanswered: Callable[[str, Unanswerable], None],
        *,
        max_length: int,
        on_begin: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.capacity = capacity
        self.intake = intake
        self.report = report
        self.report_unanswered = report_unanswered
        self.on_begin = on_begin
        self.on_end = on_end
        by_path = {stream.path: stream for stream in streams if stream.form.has_segments}
        self.head_of = Heads(by_path, max_length).head_of
        self._loop = asyncio.get_running_loop()
        self._synced: list[FastConnection] = []

    def synced(self, connection: FastConnection) -> None:
        """Have the report of a connection answered, with all the others of its round: the clock is read once for all."""
        if not self._synced:
            self._loop.call_soon(self._answer)
        self._synced.append(connection)

    def _answer(self) -> None:
        synced, self._synced = self._synced, []
        end = f"\r\nServer: {SERVER}\r\nDate: {rfc822_formatted_time()}\r\n".encode("ascii")
        loop_time, now = self._loop.time(), time.perf_counter()
        answered: list[Answered] = []
        defect: Exception | None = None
        for connection in synced:
            try:
                answered.append(connection.answer(end, loop_time, now))
            except Exception as error:  # noqa: BLE001 (the others of the round wait for their answers)
                connection.force_close()
                defect = error
        self.report(answered)
        if defect is not None:
            raise defect


class FastConnection(Connection):
    """A connection that begins in the fast lane."""

    def __init__(self, manager: Server, *, lane: FastLane, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._lane: FastLane | None = lane
        # The report that is in the lane: its head (None for no report), when it began, and its bytes. Those as they came:
        # given to aiohttp after all, they must not look to it as if they had come together.
        self._head: PlainHead | None = None
        self._begun = 0.0
        self._pieces: list[bytes] = []
        # The room that is kept for it, which while its body has not come whole is of a body that is read; the end of that wait.
        self._reservation: Reservation | None = None
        self._hold: asyncio.TimerHandle | None = None
        # What came while a report was being synced, in the pieces in which it came.
        self._behind: list[bytes] = []

    @property
    def is_fresh(self) -> bool:
        """See `Connection.is_fresh`."""
        return self._begun == 0.0 and super().is_fresh

    @property
    def _waits(self) -> bool:
        """Whether a head waits for the rest of its body."""
        return isinstance(self._reservation, BodyReservation)

    # --- bytes ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes: into the fast lane, behind the report that is in it, or to aiohttp."""
        if self._lane is None:
            super().data_received(data)
        elif self._head is None and not self._behind:
            self._begin(self._lane, data)
        elif isinstance(self._reservation, BodyReservation):
            self._go_on(self._reservation, data)
        else:
            self._behind.append(data)
            if sum(map(len, self._behind)) > self.read_ahead_bytes and self.transport is not None:
                self.transport.pause_reading()

    def _begin(self, lane: FastLane, data: bytes) -> None:
        if not self.is_steady:
            if not self.is_ending:
                # A client that does not read its answers is aiohttp's too, which waits until they can be written.
                self._leave([data])
            return
        head = lane.head_of(data)
        if head is None or len(data) > head.size + head.length:
            self._leave([data])
            return
        self._begun = time.perf_counter()
        if len(data) == head.size + head.length:
            self._commit(lane, head, [data], data[head.size :])
        else:
            self._wait(lane, head, data)

    def _wait(self, lane: FastLane, head: PlainHead, data: bytes) -> None:
        """A body that has not come whole is waited for."""
        try:
            reservation = lane.capacity.reserve(head.stream, head.length)
        except GatewayError:
            self._leave([data])
            return
        try:
            reservation.received(len(data) - head.size)
        except GatewayError:
            reservation.release()
            self._leave([data])
            return
        self._head, self._pieces, self._reservation = head, [data], reservation
        lane.on_begin()
        self._hold = self.loop.call_later(HOLD_S, self._abandon)

    def _go_on(self, reservation: BodyReservation, data: bytes) -> None:
        """More of the body that a head waits for."""
        self._pieces.append(data)
        head, lane = self._head, self._lane
        assert head is not None
        assert lane is not None
        missing = head.size + head.length - sum(map(len, self._pieces))
        try:
            reservation.received(len(data))
        except GatewayError:
            missing = -1
        if missing < 0:
            self._abandon()
        elif missing == 0:
            pieces = self._pieces
            self._end()
            self._commit(lane, head, pieces, b"".join(pieces)[head.size :])

    def _commit(self, lane: FastLane, head: PlainHead, pieces: list[bytes], body: bytes) -> None:
        try:
            self._reservation = lane.capacity.reserve_whole(head.stream, head.length)
        except GatewayError:
            self._leave(pieces)
            return
        lane.on_begin()
        self._head, self._pieces = head, pieces
        try:
            lane.intake.commit_document(head.stream, head.user, body, self._committed)
        except Exception:  # noqa: BLE001 (the ordinary lane meets the same error, and has the means to report it)
            self._abandon()

    def _committed(self, error: GatewayError | None) -> None:
        """The report is synced, or kept out of the spool."""
        head, lane = self._head, self._lane
        assert head is not None
        assert lane is not None
        if error is None:
            lane.synced(self)
        elif isinstance(error, Unanswerable):
            lane.report_unanswered(request_id_of(head.request_id), error)
            self._end()
            self.force_close()
        else:
            # The ordinary lane tries once more, and says what is wrong if it is still so.
            self._abandon()

    def answer(self, end: bytes, loop_time: float, now: float) -> Answered:
        """Answer the report that was synced.

        Args:
            end: the fields that every answer has, from behind the request's id.
            loop_time: the clock of the event loop.
            now: the clock that `seconds` are taken of.
        """
        head, lane = self._head, self._lane
        assert head is not None
        assert lane is not None
        request_id = request_id_of(head.request_id)
        self._end()
        if self.transport is not None:
            start = b"HTTP/1.1 204 No Content\r\nX-Request-ID: " + request_id.encode("ascii") + end
            if lane.capacity.stopping or self.is_last:
                self.transport.write(start + b"Connection: close\r\n\r\n")
                self.force_close()
            else:
                self.transport.write(start + b"\r\n")
                self.is_idle_from(loop_time)
                if self._behind:
                    # In a turn of its own: others of this round wait for their answers.
                    self.loop.call_soon(self._take_behind)
        return head, request_id, now - self._begun, self.remote

    def _take_behind(self) -> None:
        if self._head is not None or self.transport is None:
            return
        behind, self._behind = self._behind, []
        self.transport.resume_reading()
        for index, piece in enumerate(behind):
            self.data_received(piece)
            if self._behind:
                # The piece before began a report that is being synced, and this one stands behind it already.
                self._behind += behind[index + 1 :]
                return
        if self._ended and not self._is_answering():
            # Only a piece of a request was left, and nobody will send the rest.
            self.force_close()

    # --- leaving the lane -----------------------------------------------------------------------------------------

    def _end(self) -> None:
        """The report leaves the lane, and gives back what it took."""
        head, lane = self._head, self._lane
        assert head is not None
        assert lane is not None
        self._head, self._pieces = None, []
        if self._reservation is not None:
            self._reservation.release()
            self._reservation = None
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        lane.on_end()

    def _abandon(self) -> None:
        """Give a request that is not so plain after all to aiohttp, with everything behind it."""
        pieces = self._pieces + self._behind
        if self._behind and self.transport is not None:
            self.transport.resume_reading()
        self._behind = []
        self._end()
        self._leave(pieces)

    def _leave(self, pieces: list[bytes]) -> None:
        self._lane = None
        for piece in pieces:
            super().data_received(piece)

    def _is_answering(self) -> bool:
        if self._head is not None:
            return not self._waits
        return super()._is_answering() or bool(self._behind)

    @property
    def idle_since(self) -> float | None:
        """Not idle while a report is in the fast lane; see `Connection.idle_since`."""
        return None if self._head is not None or self._behind else super().idle_since

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after the request that is being answered."""
        return super().is_last and not self._behind

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone; a report that is being synced stays, as one whose answer was lost."""
        if self._waits:
            self._end()
        super().connection_lost(exc)

    def is_busy(self) -> bool:
        """While a report is in the fast lane; see `Connection.is_busy`."""
        return self._head is not None
