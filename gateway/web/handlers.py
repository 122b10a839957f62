"""Routes, with thin handlers behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from aiohttp import web

from gateway.access.identify import user_of
from gateway.admission.capacity import Capacity
from gateway.core.errors import GatewayError, Unanswerable
from gateway.core.paths import HEALTH, METRICS, PROBES, READY
from gateway.core.streams import Stream
from gateway.intake.body import Incoming
from gateway.intake.content import Content
from gateway.intake.receive import Intake
from gateway.telemetry.log import Log, Request
from gateway.telemetry.metric_values import OTHER
from gateway.telemetry.metrics import Metrics
from gateway.web.bulk_body import LARGE_BYTES, LargeBody
from gateway.web.connection import SERVER, Connection, Server
from gateway.web.fastlane.connection import Answered, FastConnection, FastLane
from gateway.web.head_grammar import MAX_FIELD_BYTES, MAX_FIELDS, MAX_LINE_BYTES
from gateway.web.request import expects_continue, invite_body, request_id_of, target_of, uri_of
from gateway.web.responses import CLOSING_STATUSES, RETRY_AFTER_S, ErrorResponse, json_response, response_for

READ_BUFFER_BYTES = 64 * 1024

Handler = Callable[["Exchange"], Awaitable[web.Response]]


@dataclass(slots=True)
class Exchange:
    """A request and what is to be logged of it."""

    request: web.BaseRequest
    path: str
    query: str
    request_id: str
    user: str | None = None
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Probes:
    """Answers that are not the web's own to give.

    Attributes:
        refusals: why a PUT would be refused now.
        degraded: what is wrong and yet keeps no PUT out.
        metrics: the page of `/metrics`; blocks.
    """

    refusals: Callable[[], list[str]]
    degraded: Callable[[], list[str]]
    metrics: Callable[[], bytes]


class Web:
    """Answers requests.

    Args:
        streams: each has a path of its name.
        capacity: reserves room before a body is read.
        intake: takes the body.
        probes: see `Probes`.
        fast_lane_bytes: the largest body that takes the fast lane; 0 closes it.
        delay_s: a wait before each answer, for tests.
    """

    def __init__(
        self,
        streams: tuple[Stream, ...],
        capacity: Capacity,
        intake: Intake,
        probes: Probes,
        *,
        log: Log,
        metrics: Metrics,
        fast_lane_bytes: int = 0,
        delay_s: float = 0.0,
    ) -> None:
        self._capacity = capacity
        self._intake = intake
        self._probes = probes
        self._log = log
        self._metrics = metrics
        self._delay_s = delay_s
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._routes: dict[str, dict[str, Handler]] = {
            HEALTH: {"GET": self._health, "HEAD": self._health},
            READY: {"GET": self._ready, "HEAD": self._ready},
            METRICS: {"GET": self._metrics_page, "HEAD": self._metrics_page},
        }
        self._received = {stream.name: metrics.received.labels(stream.name) for stream in streams}
        self._received_bytes = {stream.name: metrics.received_bytes.labels(stream.name) for stream in streams}
        for stream in streams:
            handler = self._receiver(stream)
            self._routes[stream.path] = {"PUT": handler, "POST": handler}
        self._seconds = {path: metrics.request_duration.labels(path) for path in self._routes}
        self._other_seconds = metrics.request_duration.labels(OTHER)
        self._lane: FastLane | None = None
        if fast_lane_bytes and not delay_s:
            self._lane = FastLane(
                streams,
                capacity,
                intake,
                self._report_fast,
                self._report_unanswered,
                max_length=fast_lane_bytes,
                on_begin=self._begin,
                on_end=self._end,
            )

    def server(self, keepalive_timeout_s: float) -> Server:
        """The protocol factory to listen with."""
        return Server(
            self.handle,
            Connection if self._lane is None else partial(FastConnection, lane=self._lane),
            answer_malformed=self._answer_malformed,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=keepalive_timeout_s,
            # The check before it has these bounds too, and answers in our words.
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            read_bufsize=READ_BUFFER_BYTES,
        )

    async def idle(self) -> None:
        """Return once no request is being answered."""
        while self._in_flight:
            self._idle.clear()
            await self._idle.wait()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, log it and count it."""
        begun = time.perf_counter()
        self._begin()
        path, _, query = target_of(request).partition("?")
        exchange = Exchange(request, path, query, request_id_of(request.headers.get("X-Request-ID")))
        try:
            try:
                if "Expect" in request.headers:
                    expects_continue(request.headers)
                response = await self._handler_for(exchange)(exchange)
            except Unanswerable as error:
                self._report_unanswered(exchange.request_id, error)
                if request.transport is not None:
                    request.transport.abort()
                # Nobody gets this one: aiohttp finds the connection gone, and leaves it at that.
                return web.Response(status=503)
            except GatewayError as error:
                response = response_for(error)
            except Exception as error:  # noqa: BLE001 (a defect of ours is logged, not in a traceback to the client)
                self._log.error("defect", where=f"request {exchange.request_id}", reason=repr(error))
                response = ErrorResponse(500, "internal", "the gateway failed; its log has more under this request's id")
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            response.headers["X-Request-ID"] = exchange.request_id
            response.headers["Server"] = SERVER
            is_over = _end_if_over(request)
            if response.status in CLOSING_STATUSES or self._capacity.stopping or is_over:
                response.force_close()
            self._report(exchange, response, time.perf_counter() - begun)
            return response
        finally:
            self._end()

    def _begin(self) -> None:
        self._in_flight += 1

    def _end(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._idle.set()

    def _handler_for(self, exchange: Exchange) -> Handler:
        methods = self._routes.get(exchange.path)
        if methods is None:
            return self._not_found if exchange.path else self._no_target
        return methods.get(exchange.request.method, self._wrong_method)

    def _report(self, exchange: Exchange, response: web.Response, seconds: float) -> None:
        self._seconds.get(exchange.path, self._other_seconds).observe(seconds)
        request = exchange.request
        sender = (request.method, exchange.path, exchange.user, request.remote)
        self._report_response(exchange.path, response, (sender, seconds, exchange.received_bytes, exchange.request_id))

    def _report_response(self, path: str, response: web.Response, request: Request) -> None:
        if response.status >= 400:
            self._metrics.rejected.labels(str(response.status)).inc()
        fault = response.fault if isinstance(response, ErrorResponse) else {}
        self._log.access(path, response.status, [request], is_probe=path in PROBES, **fault)

    def _report_unanswered(self, request_id: str, error: Unanswerable) -> None:
        self._log.error("request not answered", request_id=request_id, reason=str(error))

    def _report_fast(self, answered: Sequence[Answered]) -> None:
        for path in {head.path for head, _, _, _ in answered}:
            mine = [each for each in answered if each[0].path == path]
            self._seconds[path].observe_all([seconds for _, _, seconds, _ in mine])
            name = mine[0][0].stream.name
            self._received[name].inc(len(mine))
            self._received_bytes[name].inc(sum([head.length for head, _, _, _ in mine]))
            requests = [((head.method, path, head.user, ip), seconds, head.length, id_) for head, id_, seconds, ip in mine]
            self._log.access(path, 204, requests)

    def _answer_malformed(self, request: web.BaseRequest, error: GatewayError) -> web.Response:
        """A request that is not HTTP, or not as it is spoken here."""
        request_id = request_id_of(None)
        response = response_for(error)
        response.headers["X-Request-ID"] = request_id
        response.headers["Server"] = SERVER
        response.force_close()
        self._report_response("-", response, (("-", "-", None, request.remote), 0.0, 0, request_id))
        return response

    # --- handlers -------------------------------------------------------------------------------------------------

    def _receiver(self, stream: Stream) -> Handler:
        receive = self._intake.receive_reports if stream.form.has_segments else self._intake.receive_file
        is_named = stream.form.has_sidecar
        received, received_bytes = self._received[stream.name], self._received_bytes[stream.name]

        async def handler(exchange: Exchange) -> web.Response:
            request = exchange.request
            headers = request.headers
            exchange.user = user = user_of(headers.getall("USER_TOKEN", ()), headers.getall("Authorization", ()))
            content = Content(stream, headers.get("Content-Type", ""), headers.get("Content-Encoding", ""))
            uri = uri_of(exchange.query, is_required=not content.is_form) if is_named else ""
            # What is let in is the body, which is larger than what a form holds.
            admitted = replace(stream, max_body_bytes=content.max_body_bytes) if content.is_form else stream
            length = request.content_length
            with self._capacity.reserve(admitted, length) as reservation:
                if "Expect" in headers and expects_continue(headers):
                    invite_body(request)
                incoming = Incoming(
                    stream=stream,
                    user=user,
                    uri=uri,
                    content=content,
                    length=length,
                    body=request.content,
                    reservation=reservation,
                    large=large_body(request) if is_named and content.is_plain else None,
                )
                try:
                    count = await receive(incoming)
                finally:
                    exchange.received_bytes = incoming.received_bytes
            received.inc(count)
            received_bytes.inc(incoming.received_bytes)
            return web.Response(status=204)

        return handler

    async def _no_target(self, _: Exchange) -> web.Response:
        return ErrorResponse(400, "bad_request", "the request's target is no path of this server")

    async def _not_found(self, _: Exchange) -> web.Response:
        return ErrorResponse(404, "not_found", f"there is nothing here; try {', '.join(self._routes)}")

    async def _wrong_method(self, exchange: Exchange) -> web.Response:
        allowed = ", ".join(self._routes[exchange.path])
        response = ErrorResponse(405, "method_not_allowed", f"{exchange.path} takes {allowed}")
        response.headers["Allow"] = allowed
        return response

    async def _health(self, _: Exchange) -> web.Response:
        return json_response(200, {"status": "healthy"})

    async def _ready(self, _: Exchange) -> web.Response:
        refusals, degraded = self._probes.refusals(), self._probes.degraded()
        if refusals:
            response = json_response(503, {"status": "not ready", "reasons": refusals, "degraded": degraded})
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
            return response
        return json_response(200, {"status": "degraded" if degraded else "ready", "degraded": degraded})

    async def _metrics_page(self, _: Exchange) -> web.Response:
        page = await asyncio.to_thread(self._probes.metrics)
        return web.Response(body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


# --- parts of requests --------------------------------------------------------------------------------------------


def large_body(request: web.BaseRequest) -> LargeBody | None:
    """The body, to be read past the parser; None where that cannot be, or is not worth it."""
    connection, transport, content = request.protocol, request.transport, request.content
    length = request.content_length
    if length is None or length < LARGE_BYTES or content.is_eof():
        return None
    if transport is None or not isinstance(connection, Connection) or connection.ssl_context is not None:
        return None
    return LargeBody(connection, transport, content, length, connection.parse_anew)


def _end_if_over(request: web.BaseRequest) -> bool:
    """Whether nothing can come after this request on its connection; where its body is broken, no more of it is read."""
    connection = request.protocol
    is_broken = request.content.exception() is not None
    if not isinstance(connection, Connection):
        return is_broken
    if is_broken:
        connection.read_no_more()
    return is_broken or connection.is_last
