"""One process of the gateway without its sockets, on one thread: its rooms are the product's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from gateway.admission.capacity import Bounds, Capacity
from gateway.admission.descriptors import OpenFiles
from gateway.admission.write_fault import WriteFault
from gateway.batching.batcher import Batcher, Summaries
from gateway.core.backoff import RetryPolicy
from gateway.core.streams import Stream
from gateway.delivery.lane import Lane
from gateway.intake.body import STREAMED_BODY_BYTES, Incoming
from gateway.intake.content import Content
from gateway.intake.pipeline import Pipeline
from gateway.intake.receive import BodyTimes, Intake
from gateway.spool.journal import Journal, SegmentLimits
from gateway.spool.spool import Spool
from gateway.stores import Store
from testkit.model.fate import Fate, Loss
from testkit.model.thread import AtOnce, Monotonic
from testkit.spool import HOST, Clock, open_bench

# Small, so that some reports fill a segment; a segment, or a report too large for one, is enough for a batch.
SEGMENT_REPORT_LIMIT = 200
SEGMENTS = SegmentLimits(max_bytes=400, max_age_s=60.0, pending_bytes=1 << 20)
MAX_BATCH_BYTES = 200
RETRY = RetryPolicy(10.0, 100.0, 100.0)
# A step of the model that needs more turns of the loop than this has gone round in circles.
MOST_TURNS = 20_000
ANSWER_TURNS = 10


class Process:
    """One run of the gateway on `folder/spool`, from its recovery to its end."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        monotonic: Monotonic,
        store: Store,
        fate: Fate,
        envelope: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._fate = fate
        self._loop = loop
        self._monotonic = monotonic
        self._store = store
        self._stack = ExitStack()
        self._bench = self._stack.enter_context(open_bench(folder, clock=clock, level="error"))
        self.spool: Spool = self._bench.spool
        self.tasks: list[asyncio.Task[Any]] = []
        self.journals: dict[str, Journal] = {}
        self.batchers: dict[str, Batcher] = {}
        self.lanes: dict[str, Lane] = {}
        loop.run_until_complete(self._build(envelope=envelope))

    async def _build(self, *, envelope: bool) -> None:
        spool, log, summaries = self.spool, self._bench.log, Summaries()
        for stream in spool.streams:
            lane = Lane(
                spool,
                replace(stream, retry=RETRY),
                self._store,
                summaries=summaries,
                parallel=2,
                log=log,
                metrics=self._bench.metrics,
                monotonic=self._monotonic,
                jitter=lambda: 0.5,
            )
            self.lanes[stream.name] = lane
            wake = lane.wake
            if stream.cut is not None:
                self.journals[stream.name] = Journal(
                    spool, stream, SEGMENTS, log=log, metrics=self._bench.metrics, monotonic=self._monotonic
                )
                self.journals[stream.name].start()
                self.batchers[stream.name] = Batcher(
                    spool,
                    replace(stream, cut=replace(stream.cut, max_bytes=MAX_BATCH_BYTES)),
                    host=HOST,
                    gzip_level=1,
                    summaries=summaries,
                    cut_segments=self.journals[stream.name].cut,
                    on_sealed=lane.wake,
                    log=log,
                    monotonic=self._monotonic,
                )
                wake = self.batchers[stream.name].wake
            self._bench.listeners[stream.name] = wake
        bounds = Bounds(0, 0, 1 << 30, SEGMENT_REPORT_LIMIT, STREAMED_BODY_BYTES)
        self._capacity = Capacity(spool, bounds, {name: journal.current_fault for name, journal in self.journals.items()})
        self._write_fault = WriteFault(spool, AtOnce(), self._bench.log, pause_s=3600.0)
        self._intake = Intake(
            spool,
            self.journals,
            self._capacity,
            segment_report_limit=SEGMENT_REPORT_LIMIT,
            envelope=envelope,
            times=BodyTimes(3600.0),
            pipeline=Pipeline(AtOnce(), self._write_fault, OpenFiles(1024, 0)),
        )

    # --- steps ----------------------------------------------------------------------------------------------------

    async def receive(self, stream: Stream, body: object, *, length: int | None, user: str, uri: str, kind: str) -> None:
        """Take one body in, as the handler of a request does."""
        with self._capacity.reserve(stream, length) as reservation:
            incoming = Incoming(stream, user, uri, Content(stream, kind), length, cast("Any", body), reservation)
            if stream.form.has_sidecar:
                await self._intake.receive_file(incoming)
            else:
                await self._intake.receive_reports(incoming)

    def deliver(self, stream: Stream, *, is_hanging: Callable[[], bool]) -> None:
        """Have the lane of the stream send until it rests: for want of things, for a pause, or for an answer."""
        lane = self.lanes[stream.name]

        def rests() -> bool:
            paused = lane._resume_at > self._monotonic.now_s
            return is_hanging() or (not lane._running and (paused or not (lane._queue or lane._look_again)))

        async def run() -> None:
            running = asyncio.create_task(lane.run())
            resting = 0
            try:
                # It rests when it has rested for a few turns: what was found due is started in the next.
                while resting < 5 and not self._fate.is_dead and not running.done():
                    await asyncio.sleep(0)
                    resting = resting + 1 if rests() else 0
            finally:
                running.cancel()
                await asyncio.wait([running])
            if not running.cancelled():
                await running

        self.run(run())

    async def _stop(self) -> None:
        """End as `Service` does when it is asked to."""
        for journal in self.journals.values():
            await journal.close()
        for batcher in self.batchers.values():
            batcher.stop()
            await batcher.seal_everything()
        for lane in self.lanes.values():
            lane.drain()
        await asyncio.gather(*(lane.run() for lane in self.lanes.values()))

    def stop(self) -> None:
        """Stop in an orderly way: all that can be sent is sent."""
        self._monotonic.step_s = 3600.0
        try:
            self.run(self._stop())
        finally:
            self._monotonic.step_s = 0.0

    def run(self, step: Coroutine[Any, Any, object]) -> None:
        """Take a step to its end or to the death of the process; a step that does neither is a defect."""
        (task,) = begun = self.begin([step])
        self.turns(begun, MOST_TURNS)
        # Requests that were answered meanwhile come to know of it.
        self.turns(self.tasks, ANSWER_TURNS)
        if self._fate.is_dead:
            return
        assert task.done(), "a step goes round in circles"
        task.result()

    def begin(self, steps: Iterable[Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
        """Begin steps that end when they do."""
        begun = [self._loop.create_task(step) for step in steps]
        self.tasks = [*(task for task in self.tasks if not task.done()), *begun]
        return begun

    def turns(self, tasks: Iterable[asyncio.Task[Any]], most: int) -> None:
        """Let the loop turn until these tasks are done, the process is dead, or so often."""

        async def turn() -> None:
            for _ in range(most):
                if self._fate.is_dead or all(task.done() for task in tasks):
                    return
                await asyncio.sleep(0)

        self._loop.run_until_complete(turn())

    # --- end ------------------------------------------------------------------------------------------------------

    def end(self, loss: Loss) -> list[bytes]:
        """Let go of everything that a process holds, and give the first line of its log that admits a defect."""
        self._fate.die()
        for task in self.tasks:
            task.cancel()
        self._loop.run_until_complete(_all_over(self.tasks))
        for journal in self.journals.values():
            segment = journal._segment
            if segment is not None:
                os.close(segment.descriptor)
                if segment.path.exists():
                    _lose(segment.path, segment.synced, loss)
        log_path = self._bench.log_path
        self._stack.close()
        self._fate.reset()
        return [line for line in log_path.read_bytes().splitlines() if b'"event":"defect"' in line][:1]


async def _all_over(tasks: Iterable[Awaitable[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    # Callbacks of the dead process must not come by in the next one.
    for _ in range(3):
        await asyncio.sleep(0)


def _lose(path: Path, synced: int, loss: Loss) -> None:
    size = path.stat().st_size
    if loss is Loss.TAIL:
        os.truncate(path, synced + (size - synced) // 2)
    elif loss is Loss.ZEROES:
        os.truncate(path, synced)
        os.truncate(path, size + 7)
