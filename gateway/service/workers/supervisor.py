"""Worker processes that receive, as the process sees them that delivers.

Each worker has a socket of its own to listen at, writes segments of its own, and reports each commit to this process. All of
them share the lock of the spool, which is held until the last of them has gone, and counters. One that dies is recovered and
replaced; one whose channel to this process ends goes at once, wherever it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from gateway.config.schema import Config
from gateway.core.backoff import Doubling
from gateway.core.errors import StartError
from gateway.core.shared_counters import SharedCounters
from gateway.core.streams import Stream
from gateway.service.sockets import Listeners
from gateway.service.workers.process import WorkerProcess, program
from gateway.service.workers.protocol import Committed, Degraded, Ready, Reload, Setup, Stop, Stopped, WasCut
from gateway.spool.recovery import recover_process
from gateway.spool.spool import Spool
from gateway.telemetry.background import watched
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics

START_PATIENCE_S = 60.0
# For what a worker logs that ends while it starts.
FAREWELL_S = 5.0
# Beside the time that requests have: for the cut of its segments, before it is ended from outside.
STOP_PATIENCE_S = 10.0
# A worker that dies again and again is replaced later and later.
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 30.0
# For so long connections may wait for the next process, and not be given to others.
PATIENT_S = 1.0
SOUND_S = 60.0
LOOK_S = 0.5
RECOUNT_PAUSE_S, RECOUNT_PAUSE_MAX_S = 0.1, 60.0


def count_of(workers: int | str) -> int:
    """How many workers a configuration asks for."""
    return len(os.sched_getaffinity(0)) if isinstance(workers, str) else workers


class Supervisor:
    """A `Receiver` by other processes, which it starts, replaces and ends.

    Args:
        config: what is to be done.
        spool: where it is kept; recovered and locked.
        counters: that the spool and the metrics count on.
        log, metrics: where it is reported.
        degraded: what is wrong beyond receiving, for `/ready`.
        on_defect: called when no worker is left.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        counters: SharedCounters,
        *,
        log: Log,
        metrics: Metrics,
        degraded: Callable[[], list[str]],
        on_defect: Callable[[], None],
    ) -> None:
        self._on_defect = on_defect
        self._config = config
        self._spool = spool
        self._counters = counters
        self._log = log
        self._metrics = metrics
        self._degraded = degraded
        self._workers: list[WorkerProcess] = []
        self._listeners = Listeners([], [])
        self._keeping: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._stop_timeout_s = 0.0
        self._is_miscounted = asyncio.Event()
        # Of dead processes whose names are not in order yet.
        self._unrecovered: set[int] = set()
        # Two at once would both correct what they found.
        self._recounting = asyncio.Lock()
        self._program = program()

    async def listen(self, listeners: Listeners) -> None:
        """Start a worker for each list of own sockets; return once all accept requests. StartError if one does not."""
        self._listeners = listeners
        self._workers += [WorkerProcess(column, own, listeners.shared) for column, own in enumerate(listeners.own, start=1)]
        try:
            # To the end of all: none may still be about to start a process when the others are given up.
            ends = await asyncio.gather(*map(self._start, self._workers), return_exceptions=True)
            for failure in filter(None, ends):
                raise failure
        except BaseException as error:
            for worker in self._workers:
                worker.kill()
            await asyncio.gather(*(worker.ended() for worker in self._workers if worker.pid))
            if isinstance(error, OSError):
                raise StartError(
                    f"a worker process cannot be started ({error}): mend that, or set server.workers to 1"
                ) from error
            raise
        # A worker that nobody would replace any more must not go unnoticed.
        self._keeping = [watched(self._keep(worker), self._log, "workers") for worker in self._workers]
        self._others = [watched(run, self._log, "workers") for run in (self._tell_degraded(), self._count_anew())]

    async def stop(self, timeout_s: float) -> None:
        """Take nothing new, and let requests in flight come to their end, for so long at the most."""
        self._stop_timeout_s = timeout_s
        self._stopping.set()
        self._listeners.close()
        for worker in self._workers:
            worker.close_sockets()
            worker.send(Stop(timeout_s))
        # A worker bounds the time of its requests itself.
        patience_s = timeout_s + STOP_PATIENCE_S
        await asyncio.wait([asyncio.create_task(worker.has_stopped.wait()) for worker in self._workers], timeout=patience_s)

    async def close(self) -> None:
        """Have the segments cut, and the processes gone; one that does not go is ended, and what it leaves is recovered."""
        await asyncio.wait(self._keeping, timeout=STOP_PATIENCE_S)
        for worker in self._workers:
            worker.kill()
        for task in self._others:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

    async def cut(self, stream: Stream) -> None:
        """See `Receiver.cut`; a worker that is gone, or takes too long, is not waited for."""
        await asyncio.gather(*(worker.cut(stream.name) for worker in self._workers))

    def reload(self) -> None:
        """Have every worker use the certificate that the files hold now, which were looked at here."""
        for worker in self._workers:
            worker.send(Reload())

    async def recount(self) -> None:
        """Have the counts right after a death, if nothing changes meanwhile."""
        async with self._recounting:
            if not self._is_miscounted.is_set():
                return
            # Before: another may die meanwhile.
            self._is_miscounted.clear()
            is_counted = False
            try:
                # A directory that cannot be read now is read later.
                with contextlib.suppress(OSError):
                    is_counted = await asyncio.to_thread(self._spool.accounting.recount)
            finally:
                if not is_counted:
                    self._is_miscounted.set()

    # --- life and death -------------------------------------------------------------------------------------------

    async def _start(self, worker: WorkerProcess) -> None:
        """Start a process and wait until it accepts requests; StartError if it does not come to that."""
        setup = Setup(
            config=self._config,
            columns=len(self._workers) + 1,
            column=worker.column,
            layout=self._counters.layout,
            above=self._spool.timestamps.next(),
            counters=self._counters.descriptor or 0,
            sockets=worker.descriptors,
            is_inherited=self._listeners.is_inherited,
            owner=self._spool.ownership.owner,
            directories=tuple(self._spool.ownership.identities()),
            ballast=self._spool.ballast.size,
        )
        await worker.start(setup, self._spool.lock.descriptor, self._unrecovered)
        reading = asyncio.create_task(self._read(worker))
        waiting = asyncio.create_task(worker.is_ready.wait())
        await asyncio.wait([reading, waiting], timeout=START_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not worker.is_ready.is_set():
            if reading.done():
                # It goes by itself, and is logging why.
                await worker.ends_within(FAREWELL_S)
            worker.kill()
            raise StartError("a worker process did not start: what it met stands in the lines above")
        self._log.info("worker started", worker=worker.column, pid=worker.pid)

    async def _keep(self, worker: WorkerProcess) -> None:
        """Replace the process whenever it dies, until the gateway stops."""
        pauses = Doubling(PAUSE_MIN_S, PAUSE_MAX_S)
        while True:
            begun = time.monotonic()
            code = await worker.ended()
            if self._stopping.is_set() and code == 0:
                return
            if time.monotonic() - begun > SOUND_S:
                pauses.reset()
            self._metrics.worker_deaths.labels().inc()
            self._log.error("worker died", worker=worker.column, pid=worker.pid, exit_code=code)
            await self._look_after(worker)
            is_there = False
            while not is_there:
                if pauses.pause_s > PATIENT_S:
                    worker.close_sockets()
                if await self._is_stopping_within(pauses.next()):
                    return
                is_there = await self._replace(worker)
                if not is_there:
                    pauses.stretch()

    async def _replace(self, worker: WorkerProcess) -> bool:
        """Start another process in the place of one that is gone; whether there is one now, be it about to end."""
        try:
            if program() != self._program:
                raise OSError("the program's file is another one now; start the gateway again")
            worker.open_sockets()
            await self._start(worker)
        except OSError as error:
            self._log.error("worker not started", worker=worker.column, reason=str(error))
            if not any(each.is_running for each in self._workers):
                # Nothing is received any more: a service manager starts this process anew.
                self._on_defect()
            return False
        except StartError:
            # Told as its death. It may have received something before, so it is looked after as any other.
            return True
        worker.send(Degraded(self._degraded()))
        if self._stopping.is_set():
            # The stop was sent to the one before.
            worker.send(Stop(self._stop_timeout_s))
        return True

    async def _look_after(self, worker: WorkerProcess) -> None:
        """Put in order what a dead process left. What its clients were promised stands in segments that nobody writes."""
        self._unrecovered.add(worker.pid)
        while True:
            try:
                found = await asyncio.to_thread(self._spool.ballast.take, partial(recover_process, self._spool, worker.pid))
            except OSError as error:
                self._log.error("worker not recovered", worker=worker.column, pid=worker.pid, reason=str(error))
                worker.close_sockets()
                if await self._is_stopping_within(PAUSE_MAX_S):
                    # The next start of the gateway does it.
                    return
                continue
            break
        self._unrecovered.discard(worker.pid)
        self._log.info("worker recovered", worker=worker.column, pid=worker.pid, **asdict(found))
        if self._spool.forget_process(worker.column):
            self._is_miscounted.set()
        for stream in self._spool.streams:
            self._spool.committed(stream)

    def kill(self) -> None:
        """End every process at once; what they were doing is found by the next start."""
        for worker in self._workers:
            worker.kill()

    async def _count_anew(self) -> None:
        """Look for a moment in which nothing changes, less and less often: each look reads all names of the spool."""
        while True:
            await self._is_miscounted.wait()
            pauses = Doubling(RECOUNT_PAUSE_S, RECOUNT_PAUSE_MAX_S)
            while self._is_miscounted.is_set():
                await asyncio.sleep(pauses.next())
                await self.recount()

    async def _is_stopping_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    # --- the channel ----------------------------------------------------------------------------------------------

    async def _read(self, worker: WorkerProcess) -> None:
        by_name = {stream.name: stream for stream in self._spool.streams}
        async for message in worker.messages():
            match message:
                case Committed(stream=stream):
                    self._spool.committed(by_name[stream])
                case WasCut(stream=stream):
                    worker.was_cut(stream)
                case Ready():
                    worker.is_ready.set()
                case Stopped():
                    worker.has_stopped.set()

    async def _tell_degraded(self) -> None:
        """Have the workers know what is wrong with the delivery."""
        sent: list[str] = []
        while True:
            await asyncio.sleep(LOOK_S)
            if (degraded := self._degraded()) != sent:
                sent = degraded
                for worker in self._workers:
                    worker.send(Degraded(sent))
