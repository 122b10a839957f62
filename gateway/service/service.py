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
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from gateway.admission import descriptors
from gateway.aws.proxies import proxy_of
from gateway.config.render import describe
from gateway.config.schema import Config
from gateway.config.streams import streams_of
from gateway.core.backoff import Doubling
from gateway.core.build_info import current
from gateway.core.clock import Timestamps
from gateway.core.errors import ConfigError, StartError
from gateway.core.paths import routes_of
from gateway.core.shared_counters import SharedCounters, cells_for
from gateway.core.streams import Stream
from gateway.service.clock_watch import ClockWatch
from gateway.service.inherited import Hangup, hangup
from gateway.service.receiver import DEFECT_PATIENCE_S, HttpReceiver, Receiver
from gateway.service.sender import Sender
from gateway.service.sockets import Listeners, open_listeners
from gateway.service.workers.supervisor import Supervisor, count_of
from gateway.spool.cache_dir import room_fault
from gateway.spool.go_edition.adopt import adopt, check_streams, needs_adoption
from gateway.spool.left_streams import check_forms, left_streams
from gateway.spool.recovery import recover
from gateway.spool.spool import Spool
from gateway.stores.local import LocalStore
from gateway.stores.s3.client import s3_store
from gateway.telemetry.background import watched
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.stdlib_bridge import LibraryMessages
from gateway.web.tls import server_context

DRAINED = 0
FAILED = 1
LEFT_DATA = 3
SAME_SIGNAL_S = 1.0
# Beyond what a stop may take it ends, whatever hangs.
LAST_S = 15.0
COUNT_PAUSE_S, COUNT_PAUSE_MAX_S = 0.1, 60.0


class Service:
    """One gateway: everything between its start and its exit code.

    Args:
        config: what is to be done.
        port: to listen on; 0 takes a free one, None is none, where there are other sockets.
        objects: the directory of the local store, None for S3.
        log: where it is reported.
        inherited: sockets to listen at in place of own ones.
        on_listening: called with the port once requests are accepted; 0 where there is none.
    """

    def __init__(
        self,
        config: Config,
        port: int | None,
        objects: Path | None,
        log: Log,
        *,
        inherited: Sequence[socket.socket] = (),
        on_listening: Callable[[int], None] | None = None,
    ) -> None:
        self._config = config
        self._port = port
        self._inherited = inherited
        self._objects = objects
        self._log = log
        self._on_listening = on_listening
        self._stop = asyncio.Event()
        self._signalled_at = 0.0
        self._defect = False
        self._timed_out = False
        # While the directory was elsewhere, what was done to it and what was counted may have come apart.
        self._is_miscounted = False
        self._workers = count_of(config.server.workers)
        self._streams = streams_of(config)
        self._counters = SharedCounters(1 if self._workers == 1 else self._workers + 1, cells=cells_for(len(self._streams)))
        self._metrics = Metrics([stream.name for stream in self._streams], routes_of(self._streams), self._counters)
        self._spool = Spool(
            config.cache_dir,
            self._streams,
            timestamps=Timestamps(),
            log=log,
            metrics=self._metrics,
            counters=self._counters,
            on_commit=self._committed,
        )
        # Now: a certificate, or a proxy, that cannot be used is a fault of the configuration.
        self._tls = server_context(config.listen)
        if objects is None:
            proxy_of(config)
        # Reasons for `/ready`.
        self._left: list[str] = []
        self._receiver: Receiver
        self._listeners = Listeners([[]], [])
        self._supervisor: Supervisor | None = None
        self._sender: Sender
        # Wakes the delivery of a stream, once there is one.
        self._wake: Callable[[Stream], object] = lambda _: None

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
        before, now = descriptors.raise_limit()
        self._log.info("open files allowed", before=before, now=now)
        self._spool.lock.acquire()
        try:
            self._open_spool()
            self._build()
            # First: a signal that comes as soon as the log says that it listens stops it in order.
            self._watch_signals()
            await self._listen()
            self._sender.start()
            watching = [
                watched(ClockWatch(self._log).run(), self._log, "clock"),
                watched(self._spool.ballast.keep(), self._log, "ballast"),
            ]
            await self._stop.wait()
            for each in watching:
                each.cancel()
            code = await self._drain()
            if self._timed_out:
                self._leave(code)
            return code
        finally:
            self._listeners.withdraw()
            if not self._timed_out:
                # Else a thread may still be at work on the spool: the lock goes with the process.
                self._spool.lock.release()

    # --- start ----------------------------------------------------------------------------------------------------

    def _open_spool(self) -> None:
        """Nothing is received before this is done, so it may block."""
        begun = time.monotonic()
        try:
            check_streams(self._spool.directories)
            if needs_adoption(self._spool):
                adopted = self._spool.ballast.take(lambda: adopt(self._spool))
                if adopted.kept:
                    self._log.warning("FORMAT restored", kept=adopted.kept)
                self._log.info("spool adopted", **asdict(adopted))
            self._spool.ownership.must_hold()
            check_forms(self._spool.directories)
            self._spool.ballast.take(self._spool.directories.lay_out)
            self._spool.ownership.know(self._spool.directories.all())
            found = self._spool.ballast.take(lambda: recover(self._spool))
            self._spool.ownership.must_hold()
            self._spool.ballast.lay()
        except OSError as error:
            raise StartError(
                f"cache_dir {self._spool.root} cannot be put in order ({error}): mend the disk and start again"
            ) from error
        self._log.info("recovery done", **asdict(found), duration_s=time.monotonic() - begun)
        self._report_streams()
        self._spool.ownership.watch(self._log, self._found_again)
        reserve = self._config.spool.reserve
        if (fault := room_fault(self._spool.root, reserve, is_empty=not self._waiting_files())) is not None:
            # What waits has to be delivered all the same.
            self._log.error("disk too small", reason=fault)

    def _report_streams(self) -> None:
        """Report what an operator may not have meant: streams that are gone while something waits, and shared places."""
        for left in left_streams(self._spool.directories, self._unreadable):
            self._left.append(f"{left.name}: {left}")
            self._log.warning("stream not configured", stream=left.name, waiting_files=left.files, waiting_bytes=left.bytes)
        places: dict[tuple[str, str], str] = {}
        for stream in self._streams:
            other = places.setdefault((stream.bucket, stream.prefix), stream.name)
            if other != stream.name:
                self._log.warning(
                    "streams share a place", stream=stream.name, other=other, bucket=stream.bucket, prefix=stream.prefix
                )

    def _unreadable(self, directory: Path, error: OSError) -> None:
        self._log.warning("directory not read", directory=directory, reason=str(error))

    def _degraded(self) -> list[str]:
        """What is wrong beyond receiving, for `/ready`."""
        return self._sender.trouble() + self._left

    def _committed(self, stream: Stream) -> None:
        """Something of a stream can be delivered; from any thread, and before there is a sender."""
        self._wake(stream)

    def _found_again(self) -> None:
        """The directory is where it was at the start: what was given up in the middle is counted, and sent."""
        self._is_miscounted = True
        threading.Thread(target=self._count_again, name="count", daemon=True).start()
        for stream in self._streams:
            self._spool.committed(stream)

    def _count_again(self) -> None:
        """Look for a moment in which nothing changes, less and less often: each look reads all names of the spool."""
        pauses = Doubling(COUNT_PAUSE_S, COUNT_PAUSE_MAX_S)
        while not self._stop.is_set() and not self._recount():
            time.sleep(pauses.next())

    def _recount(self) -> bool:
        try:
            is_counted = self._spool.accounting.recount()
        except OSError:
            return False
        if is_counted:
            self._is_miscounted = False
        return is_counted

    def _build(self) -> None:
        config = self._config
        store = LocalStore(self._objects) if self._objects else s3_store(config, len(self._streams))
        self._sender = Sender(
            config,
            self._spool,
            store,
            log=self._log,
            metrics=self._metrics,
            cut_segments=lambda stream: self._receiver.cut(stream),
            on_defect=self._failed,
        )
        self._wake = self._sender.wake
        trouble = self._degraded
        if self._workers == 1:
            self._receiver = HttpReceiver(
                config, self._spool, self._metrics, self._log, tls=self._tls, degraded=trouble, on_defect=self._failed
            )
        else:
            self._supervisor = Supervisor(
                config,
                self._spool,
                self._counters,
                log=self._log,
                metrics=self._metrics,
                degraded=trouble,
                on_defect=self._failed,
            )
            self._receiver = self._supervisor

    async def _listen(self) -> None:
        self._listeners = open_listeners(self._config.listen, self._port, self._workers, self._inherited)
        # Before they are given away: a worker's are closed here when it dies.
        urls, port = self._listeners.urls("https" if self._tls else "http"), self._listeners.port()
        await self._receiver.listen(self._listeners)
        source = {"socket": "inherited"} if self._listeners.is_inherited else {}
        for url in urls:
            self._log.info("listening", address=url, **source)
        if self._on_listening is not None:
            self._on_listening(port)

    def _failed(self) -> None:
        self._defect = True
        self._stop.set()

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        if (meaning := hangup()) is Hangup.STOP:
            loop.add_signal_handler(signal.SIGHUP, self._hung_up)
        elif meaning is Hangup.RELOAD:
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            # Blocked since the first line of the program: one that came meanwhile has waited.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _hung_up(self) -> None:
        """The terminal is gone; that may be said twice, and is no second signal."""
        if not self._stop.is_set():
            self._signalled(signal.SIGHUP)

    def _reload(self) -> None:
        try:
            # Here too: files that cannot be used are nothing to pass on to workers.
            server_context(self._config.listen)
        except ConfigError as error:
            self._log.error("reload failed", reason=str(error))
            return
        self._receiver.reload()
        certificate = self._config.listen.tls_certificate
        self._log.info(
            "reloaded",
            certificate=None if certificate is None else str(certificate),
            unchanged="config.yml is read at a start only",
        )

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

    # --- stop -----------------------------------------------------------------------------------------------------

    async def _drain(self) -> int:
        begun = time.monotonic()
        shutdown = self._config.shutdown
        # Where the event loop itself waits for a disk that hangs.
        last = threading.Timer(shutdown.request_timeout + shutdown.drain_timeout + LAST_S, os._exit, (LEFT_DATA,))
        last.daemon = True
        last.start()
        try:
            return await self._drained(begun)
        finally:
            last.cancel()

    async def _drained(self, begun: float) -> int:
        shutdown = self._config.shutdown
        self._listeners.withdraw()
        await self._receiver.stop(DEFECT_PATIENCE_S if self._defect else shutdown.request_timeout)
        try:
            async with asyncio.timeout(shutdown.drain_timeout):
                await self._receiver.close()
                # After a defect nobody is to wait for a store: a new process delivers what is on the disk, and receives. And
                # what is no longer this gateway's directory has nothing that it may send.
                if not self._defect and await asyncio.to_thread(self._spool.ownership.look) is None:
                    await self._sender.drain()
        except TimeoutError:
            self._timed_out = True
            self._log.warning("drain timed out", timeout_s=self._config.shutdown.drain_timeout)
        await self._sender.close()
        if self._supervisor is not None and not self._timed_out:
            await self._supervisor.recount()
        if self._is_miscounted and not self._timed_out:
            await asyncio.to_thread(self._recount)
        return self._stopped(begun)

    def _leave(self, code: int) -> NoReturn:
        """End at once: a thread may hang in a disk that never answers, and there is nothing more to wait for."""
        self._listeners.withdraw()
        self._receiver.kill()
        self._log.close()
        os._exit(code)

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
        return self._spool.accounting.waiting_files()


def _unlike_default(config: Config) -> dict[str, object]:
    """What was configured, by dotted path; everything else is as the documentation says."""
    default = _flat(describe(Config()))
    return {path: value for path, value in _flat(describe(config)).items() if path not in default or value != default[path]}


def _flat(described: dict[str, Any]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in described.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": inner for key, inner in _flat(value).items()}
        else:
            flat[name] = value
    return flat
