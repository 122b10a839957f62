"""A connection of aiohttp's, mended where its ways are not ours."""

from __future__ import annotations

import asyncio
import heapq
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpRequestParser, HttpVersion11, RawRequestMessage
from aiohttp.web_protocol import ERROR, RequestHandler, RequestPayloadError, _ErrInfo
from yarl import URL

from gateway.core.errors import GatewayError, MalformedRequest
from gateway.telemetry.background import STOOD_STILL_S
from gateway.web.framing import POISON, Framing

SERVER = "lightfile6-insights-gateway"
# The sender of a request that came by the Unix socket, in place of an address.
UNIX = "unix"
# How the parser shows the poison in its message.
_POISON_MARK = repr(POISON.strip())[2:-1]


class Connection(RequestHandler):
    """One connection.

    What it does otherwise: it has the parser see only what `web/framing.py` has checked; it ends when its task ends, or when its
    client does not read what it is answered; it answers whole requests of a client that says that nothing more comes; it
    reports a broken body at once; and it answers what is no request in our form.

    Args:
        manager: that has made it.
        answer_malformed: answers what is no request: the request as far as it was read, and the error.
        settings: of aiohttp's.
    """

    def __init__(self, manager: Server, *, answer_malformed: Any, **settings: Any) -> None:
        super().__init__(manager, **settings)
        self._answer_malformed = answer_malformed
        # Made when it is needed: a connection may stay in the fast lane.
        self._framing: Framing | None = None
        self.remote: str | None = None
        self._ended = False
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A connection whose task ends is closed, however it ends: nobody else would ever answer on it."""
        super().connection_made(transport)
        peer = self.peername
        if _is_unix(transport):
            # aiohttp's requests are asked for it as well.
            self._cache["peername"] = (UNIX,)
            self.remote = UNIX
        else:
            self.remote = str(peer[0]) if isinstance(peer, tuple) else None
        if self._task_handler is not None:
            self._task_handler.add_done_callback(lambda _: self.force_close())

    # --- what aiohttp keeps to itself, by names of ours: no other file uses its private ones -------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the connection."""
        return self._loop

    @property
    def is_ending(self) -> bool:
        """Whether no further request is taken."""
        return self._force_close or self._close

    @property
    def is_steady(self) -> bool:
        """Whether it goes on, and its client reads what it is answered."""
        return not (self._paused or self._force_close or self._close)

    @property
    def read_ahead_bytes(self) -> int:
        """How much is read before it is asked for."""
        return self._read_bufsize

    def is_idle_from(self, loop_time: float) -> None:
        """The time of an idle connection begins anew."""
        self._next_keepalive_close_time = loop_time + self._keepalive_timeout

    def is_busy(self) -> bool:
        """Whether it is at something that aiohttp does not know of, and so is not idle."""
        return False

    # --- its beginning and its end ------------------------------------------------------------------------------------

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        self._forget_unread()
        super().connection_lost(exc)

    def _process_keepalive(self) -> None:
        """Not idle while it is busy, or while this process stood still: a request may have come, and is read first."""
        now = self._loop.time()
        if self.is_busy() or now - self._next_keepalive_close_time > STOOD_STILL_S:
            self.is_idle_from(now)
        super()._process_keepalive()

    @property
    def idle_since(self) -> float | None:
        """Since when it waits for a request, by the clock of the loop; None while one is received or answered."""
        if self._waiter is None or self._waiter.done() or self._request_in_progress or self._messages:
            return None
        return self._next_keepalive_close_time - self._keepalive_timeout

    def read_no_more(self) -> None:
        """Do not wait for the rest of a broken body: aiohttp would meet the error once more, and log it as one of its own."""
        self._lingering_time = 0.0

    def parse_anew(self) -> None:
        """A body went past the parser, which still waits for it: the next request gets a new one."""
        self._parser = HttpRequestParser(
            self,
            self._loop,
            self._read_bufsize,
            max_line_size=self.max_line_size,
            max_field_size=self.max_field_size,
            max_headers=self.max_headers,
            payload_exception=RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )
        if self._framing is not None:
            self._framing.begin()

    # --- bytes ----------------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes; where they break a body that is being received, its reader gets the error at once.

        aiohttp keeps the error for the request after it, and the reader would wait for its timeout.
        """
        if self.transport is None or self.transport.is_closing():
            # The end of the connection is known and not reported yet: aiohttp would begin a request and find itself dismantled.
            return
        if not data:
            # aiohttp asks its parser to go on with what that has in hand.
            self._parse(data)
            return
        if self._framing is None:
            self._framing = Framing()
        for piece in self._framing.take(data):
            self._parse(piece)

    def _parse(self, piece: bytes) -> None:
        super().data_received(piece)
        request = self._current_request
        if request is None or not self._messages or request.content.is_eof():
            return
        last, _ = self._messages[-1]
        if isinstance(last, _ErrInfo) and request.content.exception() is None:
            request.content.set_exception(RequestPayloadError(str(self._fault_of(last.message))))

    def _fault_of(self, message: str) -> GatewayError:
        """What is wrong, given what the parser says: its own message, unless that is of what it was given for a fault."""
        if self._framing is not None and self._framing.fault is not None and _POISON_MARK in message:
            return self._framing.fault
        return MalformedRequest(f"the request is not HTTP/1.1 ({message.strip().splitlines()[0].rstrip(':')})")

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp's never keeps a connection open
        """The client says that nothing more comes: whole requests are answered still, and all else is over."""
        if self.ssl_context is not None or not self._is_answering():
            return False
        self._ended = True
        return True

    def _is_answering(self) -> bool:
        if self._current_request is not None and not self._current_request.content.is_eof():
            return False
        return self._request_in_progress or bool(self._messages)

    @property
    def is_fresh(self) -> bool:
        """Whether no request has come yet."""
        return self._request_count == 0

    @property
    def is_last(self) -> bool:
        """Whether nothing comes after the request that is being answered."""
        return self._ended and not self._messages

    def pause_writing(self) -> None:
        """The client does not read what it is answered; where it goes on with that, it is as idle as one that says nothing."""
        super().pause_writing()
        if self._unread is None and self.transport is not None:
            self._wait_until_read(self.transport)

    def _wait_until_read(self, transport: asyncio.Transport) -> None:
        unread, due = transport.get_write_buffer_size(), self._loop.time() + self._keepalive_timeout
        self._unread = self._loop.call_at(due, self._give_up, transport, unread, due)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._forget_unread()

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _give_up(self, transport: asyncio.Transport, unread_before: int, due: float) -> None:
        """The time of an idle connection is over; one that has read something since has it once more.

        So has one whose time was over while this process stood still, and gave it nothing to read. aiohttp may have closed it
        meanwhile, which waits until all that was answered is read.
        """
        self._unread = None
        if transport.get_write_buffer_size() < unread_before or self._loop.time() - due > STOOD_STILL_S:
            self._wait_until_read(transport)
        else:
            transport.abort()

    # --- malformed requests ---------------------------------------------------------------------------------------

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached the handler."""
        fault = self._fault_of(message or str(exc) or "it cannot be read")
        response: web.StreamResponse = self._answer_malformed(request, fault)
        return response


def _is_unix(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection came by a Unix socket."""
    used = transport.get_extra_info("socket")
    return used is not None and used.family == socket.AF_UNIX


class Server(web.Server):
    """Makes connections.

    Args:
        handler: answers requests.
        make: a connection; called with the server, the loop and the settings.
        settings: see `Connection`.
    """

    def __init__(self, handler: Any, make: Callable[..., Connection], **settings: Any) -> None:
        super().__init__(handler)
        self._make = make
        self._settings = settings

    def _make_request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        """Like aiohttp's, but for a target that it can parse and then cannot read: that becomes one no route has.

        And what is no request is answered in the version that is spoken here.
        """
        if message is ERROR:
            message = message._replace(version=HttpVersion11)
        try:
            return super()._make_request(message, payload, protocol, writer, task)
        except ValueError:
            return super()._make_request(message._replace(path="", url=URL()), payload, protocol, writer, task)

    @property
    def open_count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def close_idle(self, count: int, before: float) -> int:
        """Close so many of the connections that have been idle for longest, since `before` or longer; how many there were."""
        since = [(each.idle_since, each) for each in self._connections if isinstance(each, Connection)]
        idle = [(at, each) for at, each in since if at is not None and at <= before]
        oldest = heapq.nsmallest(count, idle, key=lambda found: found[0])
        for _, connection in oldest:
            connection.force_close()
        return len(oldest)

    def __call__(self) -> Connection:
        """A new connection."""
        return self._make(self, loop=self._loop, **self._settings)
