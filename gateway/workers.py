"""Worker processes that receive, as the process sees them that delivers.

Each worker has a socket of its own to listen at, writes segments of its own and tells this process of each commit. They
share the spool's lock, which is held until the last of them has gone, and a board of numbers. One that dies is looked after
and replaced; one whose channel to this process ends goes at once, wherever it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.board import Board
from gateway.config import Config
from gateway.errors import StartError
from gateway.listening import listen_again
from gateway.log import Log
from gateway.recovery import recover_process
from gateway.spool import Spool
from gateway.streams import Kind
from gateway.tasks import watched

COMMAND = "worker"
START_PATIENCE_S = 60.0
# Beside the time that requests have: for the cut of its segments, before it is ended from outside.
STOP_PATIENCE_S = 10.0
CUT_PATIENCE_S = 30.0
# A worker that dies again and again is replaced later and later.
PAUSE_MIN_S, PAUSE_MAX_S = 0.1, 30.0
# For so long connections may wait for the next process, and not be given to others.
PATIENT_S = 1.0
SOUND_S = 60.0
LOOK_S = 0.5
RECOUNT_PAUSE_S, RECOUNT_PAUSE_MAX_S = 0.1, 60.0
LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told at its start, before it does anything.

    Attributes:
        config: what is to be done.
        columns: of the board.
        column: of the board, this worker's.
        layout: of the board, which it has to find as well.
        above: every instant that it gives is later than this one.
        board, sockets: descriptors that it has inherited.
    """

    config: Config
    columns: int
    column: int
    layout: int
    above: int
    board: int
    sockets: tuple[int, ...]


def count_of(workers: int | str) -> int:
    """How many workers a configuration asks for."""
    return len(os.sched_getaffinity(0)) if isinstance(workers, str) else workers


class Workers:
    """Takes requests in, as `Receiving` does, by other processes.

    Args:
        config: what is to be done.
        spool: where it is kept; recovered and locked.
        board: that the spool and the metrics count on.
        log: where it is told.
        degraded: what is wrong beyond receiving, for `/ready`.
        on_defect: called when nobody is left who receives.
    """

    def __init__(
        self,
        config: Config,
        spool: Spool,
        board: Board,
        log: Log,
        *,
        degraded: Callable[[], list[str]],
        on_defect: Callable[[], None],
    ) -> None:
        self._on_defect = on_defect
        self._config = config
        self._spool = spool
        self._board = board
        self._log = log
        self._degraded = degraded
        self._workers: list[_Worker] = []
        self._keeping: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._is_miscounted = asyncio.Event()
        # Of dead processes whose names are not in order yet.
        self._unrecovered: set[int] = set()
        # Two at once would both correct what they found.
        self._recounting = asyncio.Lock()
        self._program = _program()
        for stream in spool.streams:
            if stream.kind is Kind.REPORTS:
                spool.writers[stream.name] = _Writers(self._workers, stream.name)

    async def listen(self, sockets: list[list[socket.socket]]) -> None:
        """Start a worker for each list of sockets; return once all accept requests. StartError if one does not."""
        self._workers += [_Worker(column, each) for column, each in enumerate(sockets, start=1)]
        try:
            await asyncio.gather(*map(self._start, self._workers))
        except BaseException as error:
            for worker in self._workers:
                worker.kill()
            if isinstance(error, OSError):
                raise StartError(
                    f"a worker process cannot be started ({error}): mend that, or set server.workers to 1"
                ) from error
            raise
        # A worker that nobody would replace any more must not go unnoticed.
        self._keeping = [watched(self._keep(worker), self._log, "workers") for worker in self._workers]
        self._others = [watched(run, self._log, "workers") for run in (self._tell_degraded(), self._count_anew())]

    async def stop(self) -> None:
        """Take nothing new, and let requests in flight come to their end."""
        self._stopping.set()
        for worker in self._workers:
            worker.close_sockets()
            worker.send(stop=True)
        # A worker bounds the time of its requests itself.
        patience_s = self._config.shutdown.request_timeout + STOP_PATIENCE_S
        await asyncio.wait([asyncio.create_task(worker.has_stopped.wait()) for worker in self._workers], timeout=patience_s)

    async def close(self) -> None:
        """Have the segments cut, and the processes gone; one that does not go is ended, and what it leaves is recovered."""
        await asyncio.wait(self._keeping, timeout=STOP_PATIENCE_S)
        for worker in self._workers:
            worker.kill()
        for task in self._others:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)

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
                    is_counted = await asyncio.to_thread(self._spool.census.recount)
            finally:
                if not is_counted:
                    self._is_miscounted.set()

    # --- life and death -------------------------------------------------------------------------------------------

    async def _start(self, worker: _Worker) -> None:
        """Start a process and wait until it accepts requests; StartError if it does not come to that."""
        setup = Setup(
            config=self._config,
            columns=len(self._workers) + 1,
            column=worker.column,
            layout=self._board.layout,
            above=self._spool.timestamps.next(),
            board=self._board.descriptor or 0,
            sockets=tuple(each.fileno() for each in worker.sockets),
        )
        await worker.start(setup, self._spool.lock_descriptor, self._unrecovered)
        reading = asyncio.create_task(self._read(worker))
        waiting = asyncio.create_task(worker.is_ready.wait())
        await asyncio.wait([reading, waiting], timeout=START_PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not worker.is_ready.is_set():
            worker.kill()
            raise StartError("a worker process did not start: what it met stands in the lines above")
        self._log.info("worker started", worker=worker.column, pid=worker.pid)

    async def _keep(self, worker: _Worker) -> None:
        """Replace the process whenever it dies, until the gateway stops."""
        pause_s = PAUSE_MIN_S
        while True:
            begun = time.monotonic()
            code = await worker.ended()
            if self._stopping.is_set() and code == 0:
                return
            if time.monotonic() - begun > SOUND_S:
                pause_s = PAUSE_MIN_S
            self._spool.metrics.worker_deaths.labels().inc()
            self._log.error("worker died", worker=worker.column, pid=worker.pid, exit_code=code)
            await self._look_after(worker)
            is_there = False
            while not is_there:
                if pause_s > PATIENT_S:
                    worker.close_sockets()
                if await self._is_stopping_within(pause_s):
                    return
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
                is_there = await self._replace(worker)
                if not is_there:
                    pause_s = PAUSE_MAX_S

    async def _replace(self, worker: _Worker) -> bool:
        """Start another process in the place of one that is gone; whether there is one now, be it about to end."""
        try:
            if _program() != self._program:
                raise OSError("the program's file is another one now; start the gateway again")
            worker.open_sockets()
            await self._start(worker)
        except OSError as error:
            self._log.error("worker not started", worker=worker.column, reason=str(error))
            if not any(each.is_running for each in self._workers):
                # Nobody receives any more: whoever watches over this process starts it anew.
                self._on_defect()
            return False
        except StartError:
            # Told as its death. It may have received something before, so it is looked after as any other.
            return True
        worker.send(degraded=self._degraded())
        if self._stopping.is_set():
            # The stop was told to the one before.
            worker.send(stop=True)
        return True

    async def _look_after(self, worker: _Worker) -> None:
        """Put in order what a dead process left. What its clients were promised stands in segments that nobody writes."""
        self._unrecovered.add(worker.pid)
        while True:
            try:
                found = await asyncio.to_thread(recover_process, self._spool, worker.pid)
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

    async def _count_anew(self) -> None:
        """Look for a moment in which nothing changes, less and less often: each look reads all names of the spool."""
        while True:
            await self._is_miscounted.wait()
            pause_s = RECOUNT_PAUSE_S
            while self._is_miscounted.is_set():
                await asyncio.sleep(pause_s)
                await self.recount()
                pause_s = min(2 * pause_s, RECOUNT_PAUSE_MAX_S)

    async def _is_stopping_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    # --- the channel ----------------------------------------------------------------------------------------------

    async def _read(self, worker: _Worker) -> None:
        by_name = {stream.name: stream for stream in self._spool.streams}
        async for message in worker.messages():
            if "committed" in message:
                self._spool.committed(by_name[message["committed"]])
            elif "cut" in message:
                worker.was_cut(message["cut"])
            elif "ready" in message:
                worker.is_ready.set()
            elif "stopped" in message:
                worker.has_stopped.set()

    async def _tell_degraded(self) -> None:
        """Have the workers know what is wrong with the delivery."""
        told: list[str] = []
        while True:
            await asyncio.sleep(LOOK_S)
            if (degraded := self._degraded()) != told:
                told = degraded
                for worker in self._workers:
                    worker.send(degraded=told)


class _Worker:
    """One worker: a place that one process after the other takes."""

    def __init__(self, column: int, sockets: list[socket.socket]) -> None:
        self.column = column
        self.sockets = sockets
        self._addresses = [(each.family, each.getsockname()) for each in sockets]
        self.is_ready = asyncio.Event()
        self.has_stopped = asyncio.Event()
        self.pid = 0
        self._process: Process | None = None
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._cuts: list[tuple[str, asyncio.Future[None]]] = []

    async def start(self, setup: Setup, lock: int, taken: set[int]) -> None:
        """Start a process, and tell it what to do; OSError if it cannot be made, or has a pid that is `taken`."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                descriptors = (theirs.fileno(), lock, setup.board, *setup.sockets)
                process = await asyncio.create_subprocess_exec(
                    *_command(), str(theirs.fileno()), stdin=DEVNULL, pass_fds=descriptors, env=_environment()
                )
            if process.pid in taken:
                # Names with this pid are still to be put in order, and must not be taken for those of a living process.
                process.kill()
                raise OSError(f"it got the pid {process.pid} of one that is not recovered yet")
            self.is_ready.clear()
            self.has_stopped.clear()
            self._reader, self._writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            # A process that was made goes when it finds that the channel has ended.
            ours.close()
            raise
        told = pickle.dumps(setup)
        self._writer.write(len(told).to_bytes(LENGTH_BYTES, "big") + told)
        # Only now is there one that can be told something.
        self._process, self.pid = process, process.pid

    async def ended(self) -> int:
        """Wait until the process is gone, and return its exit code."""
        assert self._process is not None  # nobody waits for what was not started
        code = await self._process.wait()
        self._writer.close()
        for _, cut in self._cuts:
            if not cut.done():
                cut.set_result(None)
        self._cuts.clear()
        self.has_stopped.set()
        return code

    def kill(self) -> None:
        """End the process, if there is one."""
        if self._process is not None and self.is_running:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.returncode is None

    def close_sockets(self) -> None:
        """Listen no more here; the process, if there is one, has descriptors of its own.

        Where there is none the kernel must not give it connections that nobody accepts.
        """
        for each in self.sockets:
            each.close()
        self.sockets = []

    def open_sockets(self) -> None:
        """Listen again, if the sockets were closed; OSError if that cannot be."""
        self.sockets = self.sockets or listen_again(self._addresses)

    def send(self, **message: Any) -> None:
        """Tell the process something; one that is gone is told nothing."""
        # Its end of the channel may be gone some time before the process is.
        if self.is_running and not self._writer.is_closing():
            self._writer.write(orjson.dumps(message) + b"\n")

    async def messages(self) -> Any:
        """What the process tells, until it is gone."""
        with contextlib.suppress(ConnectionError):
            # A process that was killed may have left the beginning of a line.
            while (line := await self._reader.readline()).endswith(b"\n"):
                yield orjson.loads(line)

    async def cut(self, stream: str) -> None:
        """Have the process cut its segment; returns when that is done, or the process is gone, or takes too long for it."""
        if not self.is_running:
            return
        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cuts.append((stream, cut))
        self.send(cut=stream)
        await asyncio.wait([cut], timeout=CUT_PATIENCE_S)

    def was_cut(self, stream: str) -> None:
        """The process has cut; it answers in the order in which it was asked."""
        for at, (name, cut) in enumerate(self._cuts):
            if name == stream:
                del self._cuts[at]
                if not cut.done():
                    cut.set_result(None)
                return


class _Writers:
    """All that write segments of a stream, as one that can be asked to cut."""

    def __init__(self, workers: list[_Worker], stream: str) -> None:
        self._workers = workers
        self._stream = stream

    async def cut(self) -> None:
        """Return once what was acknowledged so far stands in cut segments."""
        await asyncio.gather(*(worker.cut(self._stream) for worker in self._workers))


def _program() -> tuple[int, ...]:
    """Which file this program is: a worker of another version would not understand this process."""
    found = os.stat(sys.executable)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _command() -> list[str]:
    """How this program is started as a worker."""
    if getattr(sys, "frozen", False):
        return [sys.executable, COMMAND]
    return [sys.executable, "-P", "-m", "gateway.cli", COMMAND]


def _environment() -> dict[str, str]:
    """The environment of a worker, which has to find this very package, whatever lies in the working directory."""
    if getattr(sys, "frozen", False):
        return dict(os.environ)
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
