"""The fast lane: a complete, plain, small report is answered without waking a task.

A connection looks at its bytes before aiohttp does. As long as every request on it has been exactly one plain report, the
head is read by a strict grammar, the body goes to the journal, and the journal's callback writes the answer. At the first
doubt the bytes, and all that follow on this connection, are aiohttp's: its parser cannot be asked what it has begun.

Nothing is decided here. Who may enter, what a report is and what a commit is are asked of `Guard` and `Intake`, and whatever
would be answered with an error is left to the ordinary lane, which finds the same error.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import RawRequestMessage
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo
from yarl import URL

from gateway.errors import GatewayError, Unanswerable
from gateway.guard import Guard, Ticket
from gateway.intake import Intake
from gateway.requestid import request_id_of
from gateway.streams import Kind, Stream

SERVER = "lightfile6-insights-gateway"
MAX_HEAD_BYTES = 8 * 1024
# How long a head waits here for its body before it is aiohttp's, whose own timeout begins then.
HOLD_S = 1.0
KEPT_HEADS = 1024

_REQUEST_LINE = re.compile(rb"(PUT|POST) (/[a-z]+) HTTP/1\.1")
_FIELD = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,8}")
# Fields that change what the body is or how the connection goes on.
_NOT_PLAIN = frozenset(
    {b"connection", b"content-encoding", b"expect", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)


@dataclass(frozen=True, slots=True)
class PlainHead:
    """The head of a plain report.

    Attributes:
        method: `PUT` or `POST`.
        path: as requested.
        stream: whose path it is.
        user: who sends it.
        request_id: as given by the client, None if it gave none.
        content_type: as claimed.
        length: of the body, in bytes.
        size: of the head itself, in bytes.
    """

    method: str
    path: str
    stream: Stream
    user: str
    request_id: str | None
    content_type: str
    length: int
    size: int


def parse_head(head: bytes, streams: Mapping[str, Stream], max_length: int) -> PlainHead | None:
    """Read a head, its empty line included; None if it is not that of a plain report of at most `max_length` bytes."""
    lines = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    stream = streams.get(line[2].decode("ascii")) if line else None
    if line is None or stream is None:
        return None
    fields: dict[bytes, str] = {}
    for text in lines[1:-2]:
        field = _FIELD.fullmatch(text)
        name = field[1].lower() if field else b""
        if field is None or name in fields or name in _NOT_PLAIN:
            return None
        fields[name] = field[2].decode("ascii")
    length = fields.get(b"content-length", "")
    if not _LENGTH.fullmatch(length.encode("ascii")) or int(length) > max_length:
        return None
    content_type = fields.get(b"content-type", "")
    user = _user(fields)
    if b"host" not in fields or user is None or "ndjson" in content_type.lower():
        return None
    return PlainHead(
        line[1].decode("ascii"),
        line[2].decode("ascii"),
        stream,
        user,
        fields.get(b"x-request-id"),
        content_type,
        int(length),
        len(head),
    )


def _user(fields: Mapping[bytes, str]) -> str | None:
    known = {"USER_TOKEN": fields.get(b"user_token", ""), "Authorization": fields.get(b"authorization", "")}
    try:
        return Guard.user_of(known)
    except GatewayError:
        return None


class Tell(Protocol):
    """Logs and counts one answered request."""

    def __call__(self, head: PlainHead, request_id: str, seconds: float, count: int, remote: str | None) -> None:
        """Told after the answer was written."""
        ...


class FastLane:
    """What the connections of one gateway share.

    Args:
        streams: the table.
        guard: decides who may enter.
        intake: commits.
        tell: see `Tell`.
        max_length: the largest body.
        on_begin, on_end: called around each request, as the ordinary lane counts its own.
    """

    def __init__(
        self,
        streams: tuple[Stream, ...],
        guard: Guard,
        intake: Intake,
        tell: Tell,
        *,
        max_length: int,
        on_begin: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.guard = guard
        self.intake = intake
        self.tell = tell
        self.on_begin = on_begin
        self.on_end = on_end
        self._max_length = max_length
        self._streams = {f"/{stream.name}": stream for stream in streams if stream.kind is Kind.REPORTS}
        # A client's heads differ little or not at all from request to request.
        self._heads: dict[bytes, PlainHead] = {}

    def head_of(self, data: bytes) -> PlainHead | None:
        """The plain head that the data begins with, None if there is none or it is not complete."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            return None
        head = data[: end + 4]
        known = self._heads.get(head)
        if known is None:
            known = parse_head(head, self._streams, self._max_length)
            if known is None:
                return None
            if len(self._heads) >= KEPT_HEADS:
                self._heads.clear()
            self._heads[head] = known
        return known


class _Request:
    """One report on its way through the fast lane."""

    __slots__ = ("begun", "count", "head", "hold", "pieces", "size", "ticket")

    def __init__(self, head: PlainHead, data: bytes, ticket: Ticket, begun: float) -> None:
        self.head = head
        # As they came: given to aiohttp after all, they must not look to it as if they had come together.
        self.pieces = [data]
        self.size = len(data)
        self.ticket = ticket
        self.begun = begun
        self.count = 0
        # The end of the wait for the body; None once it is there.
        self.hold: asyncio.TimerHandle | None = None


class Connection(RequestHandler):
    """A connection that begins in the fast lane, and whose malformed requests are answered in our form."""

    def __init__(self, manager: Server, *, lane: FastLane | None, tell_malformed: Any, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._lane = lane
        self._tell_malformed = tell_malformed
        self._fast: _Request | None = None
        # What came while a report was being synced, in the pieces in which it came.
        self._behind: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection whose task ends is closed, however it ends: nobody else would ever answer on it."""
        super().connection_made(transport)
        if self._task_handler is not None:
            self._task_handler.add_done_callback(lambda _: self.force_close())

    # --- bytes ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes: into the fast lane, behind the report that is in it, or to aiohttp."""
        if self._lane is None:
            self._give(data)
        elif self._fast is None and not self._behind:
            self._begin(data)
        elif self._fast is not None and self._fast.hold is not None:
            self._go_on(self._fast, data)
        else:
            self._behind.append(data)
            if sum(map(len, self._behind)) > self._read_bufsize and self.transport is not None:
                self.transport.pause_reading()

    def _begin(self, data: bytes) -> None:
        lane = self._lane
        if lane is None or self._force_close or self._close:
            return
        head = lane.head_of(data)
        # Who does not read its answers is aiohttp's too, which waits until they can be written.
        if head is None or len(data) > head.size + head.length or self.writing_paused:
            self._leave(data)
            return
        try:
            ticket = lane.guard.admit(head.stream, head.length)
            ticket.took(len(data) - head.size)
        except GatewayError:
            self._leave(data)
            return
        ticket.__enter__()
        self._fast = request = _Request(head, data, ticket, time.perf_counter())
        lane.on_begin()
        if len(data) == head.size + head.length:
            self._commit(request)
        else:
            request.hold = self._loop.call_later(HOLD_S, self._abandon, request)

    def _go_on(self, request: _Request, data: bytes) -> None:
        """More of the body that a head is held for."""
        request.pieces.append(data)
        request.size += len(data)
        try:
            request.ticket.took(len(data))
        except GatewayError:
            if request.hold is not None:
                request.hold.cancel()
            self._abandon(request)
            return
        missing = request.head.size + request.head.length - request.size
        if missing > 0:
            return
        if request.hold is not None:
            request.hold.cancel()
            request.hold = None
        if missing < 0:
            self._abandon(request)
        else:
            self._commit(request)

    def _commit(self, request: _Request) -> None:
        lane = self._lane
        assert lane is not None  # only the fast lane makes requests of its own
        head = request.head
        try:
            request.count = lane.intake.commit_at_once(
                head.stream,
                head.user,
                head.content_type,
                b"".join(request.pieces)[head.size :],
                lambda error: self._committed(request, error),
            )
        except Exception:  # noqa: BLE001 (the ordinary lane meets the same error, and has the means to tell it)
            self._abandon(request)

    def _committed(self, request: _Request, error: GatewayError | None) -> None:
        """The report is synced, or kept out of the spool."""
        lane = self._lane
        if isinstance(error, Unanswerable):
            self._end(request)
            self.force_close()
            return
        if error is not None or lane is None:
            # The ordinary lane tries once more, and says what is wrong if it is still so.
            self._abandon(request)
            return
        self._end(request)
        request_id = request_id_of(request.head.request_id)
        lane.tell(request.head, request_id, time.perf_counter() - request.begun, request.count, self._remote())
        if self.transport is None:
            return
        closing = lane.guard.stopping or self.is_last
        self.transport.write(_answer(request_id, closing=closing))
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if closing:
            self.force_close()
            return
        if self._behind:
            # In a turn of its own: the journal has other requests to answer.
            self._loop.call_soon(self._take_behind)

    def _take_behind(self) -> None:
        if self._fast is not None or self.transport is None:
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

    def _remote(self) -> str | None:
        peer = self.peername
        return str(peer[0]) if isinstance(peer, tuple) else None

    # --- leaving the lane -----------------------------------------------------------------------------------------

    def _end(self, request: _Request) -> None:
        self._fast = None
        request.ticket.__exit__()
        if self._lane is not None:
            self._lane.on_end()

    def _abandon(self, request: _Request) -> None:
        """Give a request that is not so plain after all to aiohttp, with everything behind it."""
        behind, self._behind = self._behind, []
        self._end(request)
        if self.transport is not None and behind:
            self.transport.resume_reading()
        for piece in [*request.pieces, *behind]:
            self._leave(piece)

    def _leave(self, data: bytes) -> None:
        self._lane = None
        self._give(data)

    def _give(self, data: bytes) -> None:
        """Give bytes to aiohttp; where they break a body that is being received, its reader is told at once.

        aiohttp keeps the error for the request after it, and the reader would wait for its timeout.
        """
        if self.transport is None or self.transport.is_closing():
            # The end of the connection is known and not told yet: aiohttp would begin a request and find itself dismantled.
            return
        super().data_received(data)
        request = self._current_request
        if request is None or not self._messages or request.content.is_eof():
            return
        last, _ = self._messages[-1]
        if isinstance(last, _ErrInfo) and request.content.exception() is None:
            request.content.set_exception(RequestPayloadError(last.message))

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's never keeps a connection open
        """The client says that nothing more comes: whole requests are answered still, and all else is over."""
        if self.ssl_context is not None or not self._is_answering():
            return False
        self._ended = True
        return True

    def read_no_more(self) -> None:
        """Do not wait for the rest of a broken body: aiohttp would meet the error once more, and tell it as one of its own."""
        self._lingering_time = 0.0

    def _is_answering(self) -> bool:
        if self._fast is not None:
            return self._fast.hold is None
        if self._current_request is not None and not self._current_request.content.is_eof():
            return False
        return self._request_in_progress or bool(self._messages) or bool(self._behind)

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after the request that is being answered."""
        return self._ended and not self._behind and not self._messages

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone; a report that is being synced stays, as one whose answer was lost."""
        request = self._fast
        if request is not None and request.hold is not None:
            request.hold.cancel()
            self._end(request)
        super().connection_lost(exc)

    def _process_keepalive(self) -> None:
        """Not idle while a report is in the fast lane, though aiohttp knows of none."""
        if self._fast is not None:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    # --- malformed requests ---------------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached the handler."""
        reason = (message or str(exc) or "the request is not HTTP").splitlines()[0]
        response: web.StreamResponse = self._tell_malformed(request, status, reason)
        return response


def _answer(request_id: str, *, closing: bool) -> bytes:
    """The bytes that the ordinary lane answers a report with."""
    connection = "Connection: close\r\n" if closing else ""
    return (
        f"HTTP/1.1 204 No Content\r\nX-Request-ID: {request_id}\r\nServer: {SERVER}\r\n"
        f"Date: {rfc822_formatted_time()}\r\n{connection}\r\n"
    ).encode("ascii")


class Server(web.Server):
    """Makes a `Connection` for each that comes."""

    def __init__(self, handler: Any, *, lane: FastLane | None, tell_malformed: Any, **settings: Any) -> None:
        super().__init__(handler)
        self._settings = settings | {"lane": lane, "tell_malformed": tell_malformed}

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Like aiohttp's, but for a target that it can parse and then cannot read: that becomes one no route has."""
        try:
            return super()._make_request(message, payload, protocol, writer, task)
        except ValueError:
            return super()._make_request(message._replace(path="", url=URL()), payload, protocol, writer, task)

    def __call__(self) -> Connection:
        """A new connection."""
        return Connection(self, loop=self._loop, **self._settings)
