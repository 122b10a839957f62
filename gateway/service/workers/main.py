"""A worker process: receives, and leaves everything else to the process that has started it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from functools import partial

import uvloop

from gateway.config.streams import streams_of
from gateway.core.clock import Timestamps
from gateway.core.errors import ConfigError
from gateway.core.paths import routes_of
from gateway.core.shared_counters import SharedCounters, cells_for
from gateway.core.streams import Stream
from gateway.service.receiver import DEFECT_PATIENCE_S, HttpReceiver
from gateway.service.sockets import Listeners
from gateway.service.workers.protocol import (
    Committed,
    Cut,
    Degraded,
    Message,
    Ready,
    Reload,
    Setup,
    Stop,
    Stopped,
    WasCut,
    open_channel,
    receive_setup,
    send,
    to_worker,
)
from gateway.spool.owner import Ownership
from gateway.spool.spool import Spool
from gateway.telemetry.background import from_any_thread
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.stdlib_bridge import LibraryMessages
from gateway.web.tls import server_context

ABANDONED = 1


def main(descriptor: int) -> int:
    """Run as a worker until a `Stop` comes; return the exit code.

    Args:
        descriptor: of the channel to the process that has started this one.
    """
    try:
        channel = socket.socket(fileno=descriptor)
        setup = receive_setup(channel)
    except (OSError, EOFError):
        # The process that has started this one is gone.
        return ABANDONED
    log = Log(setup.config.log.level, setup.config.log.format, is_shared=True).start()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Worker(setup, log).run(channel))
    except (ConfigError, OSError) as error:
        # Both were in order at the start of the gateway: a certificate has changed since, or the directory.
        log.error("worker not started", worker=setup.column, reason=str(error))
        return ABANDONED
    except Exception as error:  # noqa: BLE001 (what ends a process has to be logged)
        log.error("defect", where="worker", reason=repr(error))
        return ABANDONED
    finally:
        log.close()


class Worker:
    """Receives on the sockets that were inherited.

    Args:
        setup: what was received at the start.
        log: where it is reported.
    """

    def __init__(self, setup: Setup, log: Log) -> None:
        self._setup = setup
        self._log = log
        self._degraded: list[str] = []
        self._defect = False
        self._stop_timeout_s = 0.0
        self._stop = asyncio.Event()
        self._writer: asyncio.StreamWriter
        self._receiver: HttpReceiver

    async def run(self, channel: socket.socket) -> int:
        """Receive until a `Stop` comes; return 0 once all that was received stands in cut segments and files.

        After a defect it stops by itself, and returns `ABANDONED`.
        """
        LibraryMessages(self._log).install()
        setup, config = self._setup, self._setup.config
        streams = streams_of(config)
        counters = SharedCounters(setup.columns, column=setup.column, descriptor=setup.counters, cells=cells_for(len(streams)))
        metrics = Metrics([stream.name for stream in streams], routes_of(streams), counters)
        timestamps = Timestamps()
        timestamps.start_above(setup.above)
        spool = Spool(
            config.cache_dir,
            streams,
            timestamps=timestamps,
            log=self._log,
            metrics=metrics,
            counters=counters,
            on_commit=self._committed,
        )
        if counters.layout != setup.layout:
            raise RuntimeError("the processes do not agree on their counters")
        spool.ownership = Ownership(config.cache_dir, setup.owner)
        spool.ownership.know(spool.directories.all(), setup.directories or None)
        spool.ownership.watch(self._log)
        spool.ballast.expect(setup.ballast)
        self._loop = asyncio.get_running_loop()
        reader, self._writer = await open_channel(channel)
        self._receiver = HttpReceiver(
            config,
            spool,
            metrics,
            self._log,
            tls=server_context(config.listen),
            degraded=lambda: self._degraded,
            on_defect=self._failed,
        )
        sockets = [socket.socket(fileno=each) for each in setup.sockets]
        await self._receiver.listen(Listeners([sockets], [], is_inherited=setup.is_inherited))
        self._send(Ready())
        async with asyncio.TaskGroup() as tasks:
            obeying = tasks.create_task(self._obey(reader, {stream.name: stream for stream in streams}, tasks))
            await self._stop.wait()
            await self._receiver.stop(self._stop_timeout_s)
            self._send(Stopped())
            await self._receiver.close()
            await self._writer.drain()
            obeying.cancel()
        return ABANDONED if self._defect else 0

    def _failed(self) -> None:
        """Stop by itself; the process that has started this one finds it gone, and starts another."""
        self._defect = True
        # Until another one takes its place, new connections wait at its sockets.
        self._stop_timeout_s = DEFECT_PATIENCE_S
        self._stop.set()

    async def _obey(self, reader: asyncio.StreamReader, streams: Mapping[str, Stream], tasks: asyncio.TaskGroup) -> None:
        """Act on each message until the end of the channel, which is watched for while the worker stops, too."""
        async for message in to_worker(reader):
            match message:
                case Cut(stream=name):
                    tasks.create_task(self._cut(streams[name]))
                case Degraded(reasons=reasons):
                    self._degraded = reasons
                case Reload():
                    self._receiver.reload()
                case Stop(timeout_s=timeout_s):
                    self._stop_timeout_s = timeout_s
                    self._stop.set()
        # There is no delivery any more, and another gateway may wait for the lock. Requests in flight get no response.
        os._exit(ABANDONED)

    def _committed(self, stream: Stream) -> None:
        from_any_thread(self._loop, partial(self._send, Committed(stream.name)))

    async def _cut(self, stream: Stream) -> None:
        await self._receiver.cut(stream)
        self._send(WasCut(stream.name))

    def _send(self, message: Message) -> None:
        send(self._writer, message)
