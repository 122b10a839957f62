"""The service: builds every room, starts them, and stops them in order.

Start: spool (lock, adoption, recovery) → store → journals → delivery → listener.

Stop, at the first signal:
    1. `/ready` says 503 and new requests get it too, the listener closes; requests in flight are answered.
    2. The journals cut their segments and end.
    3. Everything committed is batched and sealed.
    4. Everything that waits is sent, until `shutdown.drain_timeout`; what is left stays on disk for the next start.
A second signal ends the process where it is, which recovery makes safe.
"""

from __future__ import annotations

import asyncio
import errno
import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gateway import names
from gateway.adoption import adopt, needs_adoption
from gateway.batching import Batcher, Summaries
from gateway.config import Config
from gateway.configprint import describe
from gateway.delivery import Lane
from gateway.disk import free_bytes
from gateway.errors import StartError
from gateway.guard import Guard, Room
from gateway.intake import STREAMED_BODY_BYTES, Intake
from gateway.journal import Journal, SegmentLimits
from gateway.librarylog import LibraryMessages
from gateway.log import Log
from gateway.metrics import Metrics, Waiting
from gateway.recovery import recover
from gateway.retry import RetryPolicy
from gateway.spool import Spool
from gateway.stores import Store
from gateway.stores.local import LocalStore
from gateway.stores.s3_client import s3_store
from gateway.streams import Kind, streams_of
from gateway.timestamps import Timestamps
from gateway.tls import server_context
from gateway.version import current
from gateway.web import Probes, Web

DRAINED = 0
FAILED = 1
LEFT_DATA = 3
DRAFT_THREADS = 8
LISTEN_BACKLOG = 4096
SAME_SIGNAL_S = 1.0
_CLOSING_S = 0.1


class Service:
    """One gateway: everything between its start and its exit code.

    Args:
        config: what is to be done.
        port: to listen on; 0 takes a free one.
        objects: the directory of the local store, None for S3.
        log: where it is told.
        on_listening: called with the port once requests are accepted.
    """

    def __init__(
        self,
        config: Config,
        port: int,
        objects: Path | None,
        log: Log,
        *,
        on_listening: Callable[[int], None] | None = None,
    ) -> None:
        self._config = config
        self._port = port
        self._objects = objects
        self._log = log
        self._on_listening = on_listening
        self._stop = asyncio.Event()
        self._signalled_at = 0.0
        self._defect = False
        self._timed_out = False
        self._metrics = Metrics()
        self._streams = streams_of(config)
        self._metrics.prepare(stream.name for stream in self._streams)
        self._spool = Spool(config.cache_dir, self._streams, timestamps=Timestamps(), log=log, metrics=self._metrics)
        self._tls = server_context(config.listen)
        self._store: Store
        self._journals: dict[str, Journal] = {}
        self._batchers: list[Batcher] = []
        self._lanes: dict[str, Lane] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._guard: Guard
        self._web: Web

    async def run(self) -> int:
        """Serve until a signal comes, drain, and return the exit code.

        Raises:
            StartError: it cannot be started here.
        """
        LibraryMessages(self._log).install()
        version = current()
        self._log.info(
            "gateway starting",
            version=version.number,
            commit=version.commit[:12],
            pid=os.getpid(),
            python=platform.python_version(),
        )
        self._log.info("configuration in effect", **_unlike_default(self._config))
        self._open_spool()
        try:
            self._build()
            # First, so that who has read that it listens may stop it by a signal at once, and it drains.
            self._watch_signals()
            listener = await self._listen()
            self._start_delivery()
            await self._stop.wait()
            return await self._drain(listener)
        finally:
            if not self._timed_out:
                # Else a thread may still be at work on the spool: the lock goes with the process.
                self._spool.release()

    # --- start ----------------------------------------------------------------------------------------------------

    def _open_spool(self) -> None:
        """Nothing is received before this is done, so it may block."""
        begun = time.monotonic()
        self._spool.acquire()
        try:
            if needs_adoption(self._spool):
                adopted = adopt(self._spool)
                self._log.info("spool adopted", **asdict(adopted))
            self._spool.lay_out()
            found = recover(self._spool)
        except OSError as error:
            raise StartError(
                f"cache_dir {self._spool.root} cannot be put in order ({error}): mend the disk and start again"
            ) from error
        self._log.info("recovery done", **asdict(found), duration_s=time.monotonic() - begun)

    def _build(self) -> None:
        config = self._config
        self._store = LocalStore(self._objects) if self._objects else s3_store(config, len(self._streams))
        segments = SegmentLimits(
            max_bytes=config.spool.segment_max_bytes,
            max_age_s=config.spool.segment_max_age,
            pending_bytes=config.limits.pending_bytes,
        )
        for stream in self._streams:
            if stream.kind is Kind.REPORTS:
                journal = Journal(self._spool, stream, segments)
                self._journals[stream.name] = journal
                self._spool.writers[stream.name] = journal
        self._build_delivery()
        self._guard = Guard(
            self._spool,
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
            self._spool,
            self._journals,
            segment_report_limit=config.spool.segment_report_limit,
            envelope=config.aggregation.envelope,
            body_timeout_s=config.limits.body_timeout,
            executor=ThreadPoolExecutor(DRAFT_THREADS, thread_name_prefix="draft"),
        )
        probes = Probes(self._guard.refusal, self._degraded, self._metrics.render)
        self._metrics.watch(self._waiting, lambda: free_bytes(self._spool.root))
        self._web = Web(
            self._streams,
            self._guard,
            intake,
            probes,
            log=self._log,
            metrics=self._metrics,
            fast_lane_bytes=config.spool.segment_report_limit if config.listen.fast_lane else 0,
            delay_s=config.response_delay_ms / 1000,
        )

    def _build_delivery(self) -> None:
        config = self._config
        loop = asyncio.get_running_loop()
        retry = RetryPolicy(config.delivery.retry_min, config.delivery.retry_max, config.delivery.refused_retry)
        summaries = Summaries()
        for stream in self._streams:
            lane = Lane(
                self._spool,
                stream,
                self._store,
                summaries=summaries,
                parallel=config.delivery.parallel_uploads,
                retry=retry,
                log=self._log,
            )
            self._lanes[stream.name] = lane
            wake = lane.wake
            if stream.kind is Kind.REPORTS:
                batcher = Batcher(
                    self._spool,
                    stream,
                    host=config.aggregation.host or socket.gethostname(),
                    max_batch_bytes=config.aggregation.max_batch_bytes,
                    gzip_level=config.aggregation.gzip_level,
                    summaries=summaries,
                    on_sealed=lane.sealed,
                    log=self._log,
                )
                self._batchers.append(batcher)
                wake = batcher.wake
            self._spool.on_commit(stream, partial(_from_any_thread, loop, wake))

    async def _listen(self) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        self._protocols = self._web.server(self._config.limits.keepalive_timeout)
        host = self._config.listen.host
        try:
            listener = await loop.create_server(
                self._protocols, host, self._port, ssl=self._tls, backlog=LISTEN_BACKLOG, reuse_address=True
            )
        except OSError as error:
            raise StartError(_why_not_listening(host, self._port, error)) from error
        self._port = listener.sockets[0].getsockname()[1]
        scheme = "https" if self._tls else "http"
        self._log.info("listening", address=f"{scheme}://{host}:{self._port}")
        if self._on_listening is not None:
            self._on_listening(self._port)
        return listener

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)

    def _signalled(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self._stop.is_set() and now - self._signalled_at < SAME_SIGNAL_S:
            # Ctrl-C reaches every process of a group, and some tools signal both the group and the process.
            return
        self._signalled_at, is_first = now, not self._stop.is_set()
        if is_first:
            self._log.info("stopping begun", signal=number.name, waiting_files=self._waiting_files())
            self._stop.set()
            return
        self._log.warning("stopped", reason="second signal", waiting_files=self._waiting_files())
        self._log.close()
        os._exit(LEFT_DATA if self._waiting_files() else FAILED)

    def _start_delivery(self) -> None:
        runs = [*(batcher.run() for batcher in self._batchers), *(lane.run() for lane in self._lanes.values())]
        self._tasks = [asyncio.create_task(run) for run in runs]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Delivery ends when it is told to; if it ends by itself the process must not go on as if all were well."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("defect", where="delivery", reason=repr(error))
            self._defect = True
            self._stop.set()

    # --- stop -----------------------------------------------------------------------------------------------------

    async def _drain(self, listener: asyncio.Server) -> int:
        begun = time.monotonic()
        self._guard.stopping = True
        listener.close()
        await self._answer_requests()
        try:
            async with asyncio.timeout(self._config.shutdown.drain_timeout):
                await self._send_everything()
        except TimeoutError:
            self._timed_out = True
            self._log.warning("drain timed out", timeout_s=self._config.shutdown.drain_timeout)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._store.close()
        return self._stopped(begun)

    async def _send_everything(self) -> None:
        for journal in self._journals.values():
            await journal.close()
        for batcher in self._batchers:
            batcher.stop()
        sealing, sending = self._tasks[: len(self._batchers)], self._tasks[len(self._batchers) :]
        await asyncio.gather(*sealing, return_exceptions=True)
        await asyncio.gather(*(batcher.seal_everything() for batcher in self._batchers))
        # Only now is there nothing to come, so that a lane that finds nothing may end.
        for lane in self._lanes.values():
            lane.drain()
        await asyncio.gather(*sending, return_exceptions=True)

    async def _answer_requests(self) -> None:
        """Let requests in flight come to their end before connections are closed: aiohttp reads nothing from a closing one."""
        timeout_s = self._config.shutdown.request_timeout
        try:
            async with asyncio.timeout(timeout_s):
                await self._web.idle()
        except TimeoutError:
            self._log.warning("requests abandoned", reason=f"not finished within {timeout_s:g} seconds")
        # All have been answered: what is left are idle connections, which aiohttp waits for in vain.
        await self._protocols.shutdown(_CLOSING_S)

    def _stopped(self, begun: float) -> int:
        waiting = self._waiting_files()
        fields = {"waiting_files": waiting, "duration_s": time.monotonic() - begun}
        if waiting:
            self._log.warning("stopped", reason="data left in the spool, delivered after the next start", **fields)
            return LEFT_DATA
        self._log.info("stopped", reason="drained", **fields)
        return FAILED if self._defect else DRAINED

    # --- what others ask ------------------------------------------------------------------------------------------

    def _waiting_files(self) -> int:
        return sum(tally.files for tally in self._spool.tallies.values())

    def _degraded(self) -> list[str]:
        return [f"{name}: {lane.trouble}" for name, lane in self._lanes.items() if lane.trouble is not None]

    def _waiting(self) -> Iterator[Waiting]:
        now = time.time_ns()
        for stream in self._streams:
            tally = self._spool.tallies[stream.name]
            oldest = self._spool.oldest_instant(stream)
            age_s = 0.0 if oldest is None else max(0.0, (now - oldest) / names.NANOSECONDS)
            yield Waiting(stream.name, tally.files, tally.bytes, age_s)


def _unlike_default(config: Config) -> dict[str, object]:
    """What was configured, by dotted path; everything else is as the documentation says."""
    default = _flat(describe(Config()))
    return {path: value for path, value in _flat(describe(config)).items() if value != default[path]}


def _flat(described: dict[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in described.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            flat[name] = value
    return flat


def _from_any_thread(loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(wake)
    except RuntimeError:
        # The loop has ended: the next start finds what was committed.
        return


def _why_not_listening(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use: stop what listens there, or give another with -p"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has: give one above 1023 with -p"
    return f"cannot listen on {host}:{port} ({error.strerror or error}): check listen.host and -p"
