"""The receiving half of the gateway: listener, web, guard, intake and journals, over one spool."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
from collections.abc import Callable
from functools import partial

from gateway import descriptors
from gateway.accepting import Acceptor
from gateway.bodyreader import STREAMED_BODY_BYTES
from gateway.config import Config
from gateway.descriptors import OpenFiles
from gateway.disk import file_system
from gateway.guard import Bounds, Guard
from gateway.intake import BodyTimes, Intake
from gateway.journal import Journal, SegmentLimits
from gateway.log import Log
from gateway.metrics import Free, Metrics
from gateway.spool import Spool
from gateway.streams import Kind
from gateway.threads import started_pool
from gateway.web import Probes, Web
from gateway.writefault import WriteFault

DRAFT_THREADS = 8
_CLOSING_S = 0.1
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
        self._spool = spool
        self._log = log
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
        metrics.watch(spool.census.of_each_stream, partial(_free, spool))
        self._guard = Guard(
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
        writers = started_pool(DRAFT_THREADS, "draft")
        self._files = OpenFiles(descriptors.limit(), descriptors.in_use())
        self._write_fault = WriteFault(spool, writers)
        intake = Intake(
            spool,
            self._journals,
            self._guard,
            segment_report_limit=config.spool.segment_report_limit,
            envelope=config.aggregation.envelope,
            times=BodyTimes(config.limits.body_timeout, config.limits.body_min_rate),
            executor=writers,
            write_fault=self._write_fault,
            files=self._files,
        )
        self._web = Web(
            spool.streams,
            self._guard,
            intake,
            Probes(self._refusals, degraded, metrics.render),
            log=log,
            metrics=metrics,
            fast_lane_bytes=config.spool.segment_report_limit if config.listen.fast_lane else 0,
            delay_s=config.response_delay_ms / 1000,
        )
        self._protocols = self._web.server(config.limits.keepalive_timeout)
        self._acceptor = Acceptor(self._protocols, self._files, log, tls=tls, on_count=metrics.open_connections.labels().set)
        metrics.max_connections.labels().set(self._files.most)

    async def listen(self, sockets: list[list[socket.socket]]) -> None:
        """Accept requests on all of these sockets from now on."""
        for each in itertools.chain(*sockets):
            self._acceptor.listen(each)

    def _refusals(self) -> list[str]:
        """Why a body would be refused now, for `/ready`."""
        reasons = self._guard.refusal()
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
        self._guard.stopping = True
        self._acceptor.close()
        try:
            # Before connections are closed: aiohttp reads nothing from a closing one.
            async with asyncio.timeout(timeout_s):
                await self._web.idle()
        except TimeoutError:
            self._log.warning("requests abandoned", reason=f"not finished within {timeout_s:g} seconds")
        # All have been answered: what is left are idle connections, which aiohttp waits for in vain.
        await self._protocols.shutdown(_CLOSING_S)

    async def close(self) -> None:
        """Cut the segments, and end their writers."""
        await self._write_fault.close()
        for journal in self._journals.values():
            await journal.close()


def _free(spool: Spool) -> Free:
    seen = file_system(spool.root)
    return Free(seen.free_bytes, seen.free_inodes)
