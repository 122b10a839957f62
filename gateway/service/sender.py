"""The sending half of the gateway: batches are cut and sealed, and all that waits is driven to its store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from gateway.batching.batcher import Batcher, Summaries
from gateway.config.schema import Config
from gateway.core.streams import Stream
from gateway.delivery.lane import Lane
from gateway.spool.spool import Spool
from gateway.stores import Store
from gateway.telemetry.background import from_any_thread, watched
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics


class Sender:
    """Drives what is in the spool to the store.

    Args:
        config: what is to be done.
        spool: where it waits; recovered.
        store: where it goes; closed by `close`.
        log, metrics: where it is reported.
        cut_segments: has what was acknowledged of a stream stand in cut segments.
        on_defect: called when a part of it ends by itself, which it never should.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        store: Store,
        *,
        log: Log,
        metrics: Metrics,
        cut_segments: Callable[[Stream], Awaitable[None]],
        on_defect: Callable[[], None],
    ) -> None:
        self._log = log
        self._store = store
        self._on_defect = on_defect
        self._batchers: dict[str, Batcher] = {}
        self._lanes: dict[str, Lane] = {}
        self._sealing: list[asyncio.Task[None]] = []
        self._delivering: list[asyncio.Task[None]] = []
        self._wakes: dict[Stream, Callable[[], None]] = {}
        self._loop = asyncio.get_running_loop()
        summaries = Summaries()
        for stream in spool.streams:
            self._lanes[stream.name] = lane = Lane(
                spool,
                stream,
                store,
                summaries=summaries,
                parallel=config.delivery.parallel_uploads,
                log=log,
                metrics=metrics,
            )
            self._wakes[stream] = lane.wake
            if stream.cut is not None:
                batcher = Batcher(
                    spool,
                    stream,
                    host=config.aggregation.host or socket.gethostname(),
                    gzip_level=config.aggregation.gzip_level,
                    summaries=summaries,
                    cut_segments=partial(cut_segments, stream),
                    on_sealed=lane.wake,
                    log=log,
                )
                self._batchers[stream.name] = batcher
                self._wakes[stream] = batcher.wake

    def wake(self, stream: Stream) -> None:
        """Something of a stream was committed; may be called from any thread."""
        from_any_thread(self._loop, self._wakes[stream])

    def start(self) -> None:
        """Begin; from now on what waits is sent."""
        self._sealing = [self._watched(batcher.run()) for batcher in self._batchers.values()]
        self._delivering = [self._watched(lane.run()) for lane in self._lanes.values()]

    def _watched(self, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return watched(run, self._log, "delivery", self._on_defect)

    def trouble(self) -> list[str]:
        """What keeps streams from being delivered, for `/ready`."""
        delivering = [f"{name}: {lane.trouble}" for name, lane in self._lanes.items() if lane.trouble is not None]
        batching = [f"aggregation of {name}: {it.trouble}" for name, it in self._batchers.items() if it.trouble is not None]
        return delivering + batching

    async def drain(self) -> None:
        """Seal and send all there is, and return when nothing is left that can be sent without a person's help."""
        for batcher in self._batchers.values():
            batcher.stop()
        await asyncio.gather(*self._sealing, return_exceptions=True)
        await asyncio.gather(*(batcher.seal_everything() for batcher in self._batchers.values()))
        # Only now is there nothing to come, so that a lane that finds nothing may end.
        for lane in self._lanes.values():
            lane.drain()
        await asyncio.gather(*self._delivering, return_exceptions=True)

    async def close(self) -> None:
        """End, wherever it is; what was being sent is found again at the next start."""
        tasks = [*self._sealing, *self._delivering]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.close()
