"""The receiving half of the gateway: listener, web, admission, intake and journals, over one spool."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Protocol

from gateway.admission import descriptors
from gateway.admission.capacity import Bounds, Capacity
from gateway.admission.descriptors import OpenFiles
from gateway.admission.write_fault import WriteFault
from gateway.config.schema import Config
from gateway.core.disk import file_system
from gateway.core.errors import ConfigError
from gateway.core.streams import Stream
from gateway.core.threads import start_all
from gateway.intake.body import STREAMED_BODY_BYTES
from gateway.intake.pipeline import Pipeline
from gateway.intake.receive import BodyTimes, Intake
from gateway.service.sockets import Listeners
from gateway.spool.journal import Journal, SegmentLimits
from gateway.spool.spool import Spool
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Free, Metrics
from gateway.web.acceptor import Acceptor
from gateway.web.connection import Connection
from gateway.web.handlers import Probes, Web
from gateway.web.handshakes import Handshakes
from gateway.web.tls import renew

DRAFT_THREADS = 8
_CLOSING_S = 0.1
# At a stop with inherited sockets: how long an accepted connection has for its first request.
FIRST_REQUEST_S = 2.0
_LOOK_S = 0.01
# How long requests in flight may go on after a defect: what mends it is a new process, and that waits for the end of this one.
DEFECT_PATIENCE_S = 1.0


class Receiver(Protocol):
    """Takes requests in, from the first connection to the last response; one process does, or several together."""

    async def listen(self, listeners: Listeners) -> None:
        """Accept requests on all of these sockets from now on; StartError if that cannot be."""
        ...

    async def cut(self, stream: Stream) -> None:
        """Return once what was acknowledged of a stream so far stands in cut segments."""
        ...

    def reload(self) -> None:
        """Use the certificate that the files hold now, for new connections."""
        ...

    async def stop(self, timeout_s: float) -> None:
        """Take nothing new, and let requests in flight come to their end, for so long at the most."""
        ...

    async def close(self) -> None:
        """End, once all that was acknowledged stands in cut segments and files."""
        ...

    def kill(self) -> None:
        """End at once what this process cannot end by ending itself."""
        ...


class HttpReceiver:
    """Takes requests in, from the first connection to the last answer.

    Args:
        config: what is to be done.
        spool: where it is kept; recovered.
        metrics: what is counted.
        log: where it is reported.
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
        self._spool = spool
        self._metrics = metrics
        self._log = log
        self._config = config
        self._tls = tls
        segments = SegmentLimits(
            max_bytes=config.spool.segment_max_bytes,
            max_age_s=config.spool.segment_max_age,
            pending_bytes=config.limits.pending_bytes,
        )
        self._journals = {
            stream.name: Journal(
                spool,
                stream,
                replace(segments, max_records=stream.cut.max_records if stream.cut else 0),
                log=log,
                metrics=metrics,
                on_defect=on_defect,
            )
            for stream in spool.streams
            if stream.form.has_segments
        }
        self._capacity = Capacity(
            spool,
            Bounds(
                quota=config.spool.quota,
                reserve=config.spool.reserve,
                pending_bytes=config.limits.pending_bytes,
                held_bytes=config.spool.segment_report_limit,
                streamed_bytes=STREAMED_BODY_BYTES,
            ),
            {name: journal.current_fault for name, journal in self._journals.items()},
        )
        self._writers = ThreadPoolExecutor(DRAFT_THREADS, thread_name_prefix="draft")
        self._files = OpenFiles(descriptors.limit(), descriptors.in_use())
        self._write_fault = WriteFault(spool, self._writers, log)
        intake = Intake(
            spool,
            self._journals,
            self._capacity,
            segment_report_limit=config.spool.segment_report_limit,
            envelope=config.aggregation.envelope,
            times=BodyTimes(config.limits.body_timeout, config.limits.body_min_rate),
            pipeline=Pipeline(self._writers, self._write_fault, self._files),
        )
        self._web = Web(
            spool.streams,
            self._capacity,
            intake,
            Probes(self._refusals, degraded, metrics.render),
            log=log,
            metrics=metrics,
            fast_lane_bytes=config.spool.segment_report_limit if config.listen.fast_lane else 0,
            delay_s=config.response_delay_ms / 1000,
        )
        self._protocols = self._web.server(config.limits.keepalive_timeout)
        self._acceptor = Acceptor(
            self._protocols,
            self._files,
            log,
            tls=tls,
            handshake_s=config.limits.keepalive_timeout,
            on_count=metrics.open_connections.labels().set,
        )
        metrics.max_connections.labels().set(self._files.most)
        self._is_inherited = False

    def start(self) -> None:
        """Be ready for requests; StartError where the system has no room for the threads that write."""
        start_all(self._writers, DRAFT_THREADS)
        if self._tls is not None:
            Handshakes(self._log).watch(self._tls)
        for journal in self._journals.values():
            journal.start()
        self._metrics.watch(self._spool.accounting.of_each_stream, partial(_free, self._spool), self._spool.timestamps.ahead_s)

    async def listen(self, listeners: Listeners) -> None:
        """See `Receiver.listen`."""
        self.start()
        self._is_inherited = listeners.is_inherited
        for each in listeners.of(0):
            self._acceptor.listen(each)

    def reload(self) -> None:
        """Use the certificate that the files hold now, for new connections; if it cannot be used, the one of before."""
        if self._tls is None:
            return
        try:
            renew(self._tls, self._config.listen)
        except ConfigError as error:
            self._log.error("reload failed", reason=str(error))

    def _refusals(self) -> list[str]:
        """Why a body would be refused now, for `/ready`."""
        reasons = self._capacity.refusal()
        for name, journal in self._journals.items():
            if journal.is_full:
                reasons.append(f"{name}: too many reports wait to be written")
        if (error := self._write_fault.current()) is not None:
            reasons.append(f"files: {error}")
        if self._acceptor.is_blocked:
            reasons.append(f"new connections have to wait: {self._files.shortage()}")
        return reasons

    async def stop(self, timeout_s: float) -> None:
        """Take nothing new, and let requests in flight come to their end, for so long at the most."""
        # Inherited sockets stay open elsewhere: connections wait in them for the next process.
        self._acceptor.close()
        if self._is_inherited:
            await self._serve_accepted()
        self._capacity.stopping = True
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
            is_done = not self._acceptor.is_opening and not any(
                isinstance(each, Connection) and each.is_fresh for each in self._protocols.connections
            )
            if is_done or time.monotonic() > ends:
                return

    async def cut(self, stream: Stream) -> None:
        """See `Receiver.cut`."""
        if stream.name in self._journals:
            await self._journals[stream.name].cut()

    def kill(self) -> None:
        """See `Receiver.kill`: nothing is left of it when this process ends."""

    async def close(self) -> None:
        """Cut the segments, and end their writers."""
        await self._write_fault.close()
        for journal in self._journals.values():
            await journal.close()


def _free(spool: Spool) -> Free:
    seen = file_system(spool.root)
    return Free(seen.free_bytes, seen.free_inodes)
