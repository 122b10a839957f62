"""The receiving half of the gateway: listener, web, guard, intake and journals, over one spool."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.config import Config
from gateway.connection import Connection
from gateway.disk import free_bytes
from gateway.errors import ConfigError
from gateway.guard import Guard, Room
from gateway.handshakes import Handshakes
from gateway.intake import STREAMED_BODY_BYTES, Intake
from gateway.journal import Journal, SegmentLimits
from gateway.listening import LISTEN_BACKLOG, Listeners
from gateway.log import Log
from gateway.metrics import Metrics
from gateway.spool import Spool
from gateway.streams import Kind
from gateway.tls import renew
from gateway.web import Probes, Web

DRAFT_THREADS = 8
_CLOSING_S = 0.1
# At a stop with inherited sockets: how long an accepted connection has for its first request.
FIRST_REQUEST_S = 2.0
_LOOK_S = 0.01
# How long requests in flight may go on after a defect: what mends it is a new process, and that waits for the end of this one.
DEFECT_PATIENCE_S = 1.0


class Receiving:
    """Takes requests in, from the first connection to the last answer.

    Args:
        config: what is to be done.
        spool: where it is kept; recovered.
        metrics: what is counted.
        log: where it is told.
        tls: for HTTPS, None for HTTP.
        degraded: what is wrong beyond receiving, for `/ready`.
        on_defect: called when a part of it has failed in a way that only a new process mends.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        metrics: Metrics,
        log: Log,
        *,
        tls: ssl.SSLContext | None,
        degraded: Callable[[], list[str]],
        on_defect: Callable[[], object],
    ) -> None:
        self._config = config
        self._spool = spool
        self._log = log
        self._tls = tls
        if tls is not None:
            Handshakes(log).watch(tls)
        segments = SegmentLimits(
            max_bytes=config.spool.segment_max_bytes,
            max_age_s=config.spool.segment_max_age,
            pending_bytes=config.limits.pending_bytes,
        )
        self._journals = {
            stream.name: Journal(spool, stream, segments, on_defect=on_defect)
            for stream in spool.streams
            if stream.kind is Kind.REPORTS
        }
        spool.writers.update(self._journals)
        metrics.watch(spool.census.of_each_stream, lambda: free_bytes(spool.root), spool.timestamps.ahead_s)
        self._guard = Guard(
            spool,
            Room(
                quota=config.spool.quota,
                reserve=config.spool.reserve,
                pending_bytes=config.limits.pending_bytes,
                held_bytes=config.spool.segment_report_limit,
                streamed_bytes=STREAMED_BODY_BYTES,
            ),
            {name: journal.current_fault for name, journal in self._journals.items()},
        )
        intake = Intake(
            spool,
            self._journals,
            segment_report_limit=config.spool.segment_report_limit,
            envelope=config.aggregation.envelope,
            body_timeout_s=config.limits.body_timeout,
            executor=ThreadPoolExecutor(DRAFT_THREADS, thread_name_prefix="draft"),
        )
        self._web = Web(
            spool.streams,
            self._guard,
            intake,
            Probes(self._guard.refusal, degraded, metrics.render),
            log=log,
            metrics=metrics,
            fast_lane_bytes=config.spool.segment_report_limit if config.listen.fast_lane else 0,
            delay_s=config.response_delay_ms / 1000,
        )
        self._protocols = self._web.server(config.limits.keepalive_timeout)
        self._listeners: list[asyncio.AbstractServer] = []
        self._is_inherited = False

    async def listen(self, listeners: Listeners) -> None:
        """Accept requests on all of these sockets from now on."""
        self._is_inherited = listeners.is_inherited
        loop = asyncio.get_running_loop()
        for each in listeners.of(0):
            if each.family == socket.AF_UNIX:
                # Without TLS: what goes through it does not leave this machine. Its file belongs to the one who made it.
                made = await loop.create_unix_server(  # type: ignore[call-arg]  # uvloop's takes cleanup_socket, asyncio's from 3.13
                    self._protocols, sock=each, backlog=LISTEN_BACKLOG, cleanup_socket=False
                )
            else:
                made = await loop.create_server(
                    self._protocols,
                    sock=each,
                    ssl=self._tls,
                    ssl_handshake_timeout=None if self._tls is None else self._config.limits.keepalive_timeout,
                    backlog=LISTEN_BACKLOG,
                )
            self._listeners.append(made)

    def reload(self) -> None:
        """Use the certificate that the files hold now, for new connections; if it cannot be used, the one of before."""
        if self._tls is None:
            return
        try:
            renew(self._tls, self._config.listen)
        except ConfigError as error:
            self._log.error("reload failed", reason=str(error))

    async def stop(self, timeout_s: float) -> None:
        """Take nothing new, and let requests in flight come to their end, for so long at the most."""
        # Inherited sockets stay open elsewhere: connections wait in them for the next process.
        for listener in self._listeners:
            listener.close()
        if self._is_inherited:
            await self._serve_accepted()
        self._guard.stopping = True
        try:
            # Before connections are closed: aiohttp reads nothing from a closing one.
            async with asyncio.timeout(timeout_s):
                await self._web.idle()
        except TimeoutError:
            self._log.warning("requests abandoned", reason=f"not finished within {timeout_s:g} seconds")
        # All have been answered: what is left are idle connections, which aiohttp waits for in vain.
        await self._protocols.shutdown(_CLOSING_S)

    async def _serve_accepted(self) -> None:
        """Answer the first request of each connection that was accepted: not accepted, it would wait for the next process."""
        ends = time.monotonic() + FIRST_REQUEST_S
        while True:
            # At least once: a connection that was accepted in this turn is known in the next one.
            await asyncio.sleep(_LOOK_S)
            # Of one whose handshake is not over nothing is known here, so with TLS the time is waited for.
            is_done = self._tls is None and not any(
                isinstance(each, Connection) and each.is_fresh for each in self._protocols.connections
            )
            if is_done or time.monotonic() > ends:
                return

    async def close(self) -> None:
        """Cut the segments, and end their writers."""
        for journal in self._journals.values():
            await journal.close()
