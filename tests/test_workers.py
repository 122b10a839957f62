"""Workers are replaced when they die, waited for when they stop, and never waited for without an end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop
from fixtures_spool import USAGE, WAIT_S, until

from gateway import workers as workers_room
from gateway.board import Board
from gateway.config import Config, Server, Shutdown
from gateway.errors import StartError
from gateway.listening import listening_sockets
from gateway.log import Log
from gateway.metrics import Metrics
from gateway.recovery import recover
from gateway.spool import Spool
from gateway.streams import streams_of
from gateway.timestamps import Timestamps
from gateway.worker import ABANDONED
from gateway.workers import Workers, count_of

HOST = "127.0.0.1"
NO_ANSWER = 0


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the loop of the program, which minds some things that others pass over."""

    @wraps(test)
    def run(*arguments: Any, **keywords: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(test(*arguments, **keywords))

    return run


@dataclass
class Bench:
    """Workers, in processes of their own, as the first process sees them."""

    spool: Spool
    workers: Workers
    log_path: Path
    port: int
    degraded: list[str]
    defects: list[str]

    def told(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event that were written so far."""
        lines = [orjson.loads(line) for line in self.log_path.read_bytes().split(b"\n")[:-1]]
        return [line for line in lines if line["event"] == event]

    def pid(self, worker: int) -> int:
        """The process of a worker that was started last."""
        return next(int(line["pid"]) for line in reversed(self.told("worker started")) if line["worker"] == worker)

    async def dies(self, worker: int, event: str) -> None:
        """Kill a worker, and return when an event is told once more."""
        before = len(self.told(event))
        os.kill(self.pid(worker), signal.SIGKILL)
        await until(lambda: len(self.told(event)) > before)

    async def put(self, number: int) -> int:
        """Send a report on a connection of its own and return the status, `NO_ANSWER` if the connection ends without one."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        body = b'{"n":%d}' % number
        writer.write(b"PUT /usage HTTP/1.1\r\nHost: g\r\nUSER_TOKEN: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        answer = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(WAIT_S):
                answer = await reader.readline()
        writer.close()
        return int(answer.split()[1]) if answer else NO_ANSWER

    async def put_on_both(self) -> int:
        """Have both workers receive something, and return how many reports that took."""
        for number in range(100):
            assert await self.put(number) == 204
            if self.spool.census.open["usage"].files == 2:
                return number + 1
        raise AssertionError("one worker has received nothing")


@asynccontextmanager
async def running(folder: Path, *, count: int = 2) -> AsyncIterator[Bench]:
    """Start workers, and have them gone at the end."""
    config = replace(Config(), cache_dir=folder / "spool", server=Server(workers=count), shutdown=Shutdown(request_timeout=1))
    log_path = folder / "log"
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    log, board = Log("info", "json", descriptor, is_shared=True), Board(count + 1)
    degraded: list[str] = []
    defects: list[str] = []
    spool = Spool(config.cache_dir, streams_of(config), timestamps=Timestamps(), log=log, metrics=Metrics(board), board=board)
    spool.acquire()
    spool.lay_out()
    recover(spool)
    workers = Workers(config, spool, board, log, degraded=lambda: degraded, on_defect=lambda: defects.append("nobody"))
    sockets = listening_sockets(HOST, 0, count)
    bench = Bench(spool, workers, log_path, sockets[0][0].getsockname()[1], degraded, defects)
    try:
        await workers.listen(sockets)
        await until(lambda: len(bench.told("worker started")) == count)
        yield bench
        await workers.stop()
        await workers.close()
    finally:
        # Also after a test that failed, whose transports would be told of in other tests.
        workers._stopping.set()
        for worker in workers._workers:
            worker.kill()
            worker.close_sockets()
        for task in workers._others:
            task.cancel()
        await asyncio.gather(*workers._keeping, *workers._others, return_exceptions=True)
        spool.release()
        log.close(WAIT_S)
        os.close(descriptor)


def test_how_many() -> None:
    """A number is one, and `auto` is the number of cores that the process may use."""
    assert count_of(3) == 3
    assert count_of("auto") == len(os.sched_getaffinity(0))


@on_uvloop
async def test_a_stop_leaves_cut_segments(tmp_path: Path) -> None:
    """After a stop all that was received stands in cut segments, no process is left, and none was told to have died."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        await bench.workers.stop()
        await bench.workers.close()
        assert (bench.spool.census.open["usage"].files, bench.spool.census.claimable["usage"].files) == (0, 2)
        assert len(list(bench.spool.directory(USAGE).glob("*.jsonl"))) == 2
        assert bench.told("worker died") == []


@on_uvloop
async def test_a_cut_asks_every_worker(tmp_path: Path) -> None:
    """After a cut what every worker has acknowledged can be claimed."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        await bench.spool.cut(USAGE)
        assert bench.spool.census.claimable["usage"].files == 2
        assert bench.spool.claim(USAGE, 1 << 30, "host") is not None


@on_uvloop
async def test_a_cut_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker does nothing, a cut gives up on it, and what the other has received can be claimed."""
    monkeypatch.setattr(workers_room, "CUT_PATIENCE_S", 0.5)
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        os.kill(bench.pid(1), signal.SIGSTOP)
        begun = time.monotonic()
        await bench.spool.cut(USAGE)
        # Half of it: the timers of the loop count from a clock that may be some milliseconds behind.
        assert time.monotonic() - begun >= 0.25
        assert bench.spool.census.claimable["usage"].files == 1
        os.kill(bench.pid(1), signal.SIGCONT)
        await until(lambda: bench.spool.census.claimable["usage"].files == 2)


@on_uvloop
async def test_a_cut_does_not_wait_for_the_dead(tmp_path: Path) -> None:
    """A worker that dies while it is waited for, or before, holds up no cut."""
    async with running(tmp_path) as bench:
        os.kill(bench.pid(1), signal.SIGSTOP)
        cutting = asyncio.create_task(bench.spool.cut(USAGE))
        await asyncio.sleep(0)
        await bench.dies(1, "worker died")
        begun = time.monotonic()
        await cutting
        assert time.monotonic() - begun < workers_room.CUT_PATIENCE_S / 2


@on_uvloop
async def test_one_that_does_not_stop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a stop a worker that does nothing is killed, and what it has acknowledged is put in order with the rest."""
    monkeypatch.setattr(workers_room, "STOP_PATIENCE_S", 0.5)
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        os.kill(bench.pid(1), signal.SIGSTOP)
        await bench.workers.stop()
        await bench.workers.close()
        await bench.workers.recount()
        assert [line["exit_code"] for line in bench.told("worker died")] == [-signal.SIGKILL]
        assert (bench.spool.census.open["usage"].files, bench.spool.census.claimable["usage"].files) == (0, 2)


@on_uvloop
async def test_a_dead_worker_is_recovered_and_replaced(tmp_path: Path) -> None:
    """What it has acknowledged can be claimed, the counts are right, and its place is taken by one that receives."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        await bench.dies(1, "worker started")
        (recovered,) = bench.told("worker recovered")
        assert recovered["segments_cut"] == 1
        assert (bench.spool.census.claimable["usage"].files, bench.spool.census.waiting["usage"].files) == (1, 1)
        await bench.put_on_both()


@on_uvloop
async def test_what_cannot_be_counted_now_is_counted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be read after a death does not keep a worker from being replaced."""
    monkeypatch.setattr(workers_room, "RECOUNT_PAUSE_S", 0.001)
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        recount = bench.spool.census.recount

        def fails() -> bool:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(bench.spool.census, "recount", fails)
        # A change that was begun, and counted, and that did not come to its end.
        bench.spool.census._changes.columns[1][0] += 1
        bench.spool.census.waiting["usage"].add(5, 500)
        await bench.dies(1, "worker started")
        assert bench.spool.census.waiting["usage"].files == 6
        monkeypatch.setattr(bench.spool.census, "recount", recount)
        await until(lambda: bench.spool.census.waiting["usage"].files == 1)
        assert bench.told("defect") == []


@on_uvloop
async def test_one_that_cannot_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, tried again, leaves no descriptor behind, and does not hold up a stop; the other goes on."""
    monkeypatch.setattr(workers_room, "PAUSE_MAX_S", 0.2)
    async with running(tmp_path) as bench:
        monkeypatch.setattr(workers_room, "_command", lambda: ["/nonexistent/program"])
        await bench.dies(1, "worker not started")
        descriptors = len(os.listdir("/proc/self/fd"))
        await until(lambda: len(bench.told("worker not started")) >= 3)
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert bench.defects == []
        begun = time.monotonic()
        await bench.workers.stop()
        await bench.workers.close()
        assert time.monotonic() - begun < 5


@on_uvloop
async def test_nobody_waits_for_one_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a worker cannot be started all connections go to the other, and when it can be it receives again."""
    monkeypatch.setattr(workers_room, "PATIENT_S", 0.1)
    monkeypatch.setattr(workers_room, "PAUSE_MAX_S", 0.2)
    async with running(tmp_path) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(workers_room, "_command", lambda: ["/nonexistent/program"])
            await bench.dies(1, "worker not started")
            await until(lambda: len(bench.told("worker not started")) >= 3)
            assert [await bench.put(number) for number in range(30)] == [204] * 30
        await until(lambda: len(bench.told("worker started")) == 3)
        await bench.put_on_both()


@on_uvloop
async def test_when_nobody_is_left_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last worker cannot be replaced, whoever has started them is told that nobody receives any more."""
    monkeypatch.setattr(workers_room, "PAUSE_MAX_S", 0.2)
    async with running(tmp_path) as bench:
        monkeypatch.setattr(workers_room, "_command", lambda: ["/nonexistent/program"])
        await bench.dies(1, "worker not started")
        assert bench.defects == []
        os.kill(bench.pid(2), signal.SIGKILL)
        await until(lambda: bench.defects != [])


@on_uvloop
async def test_a_start_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends before it accepts requests is an error at the start."""
    monkeypatch.setattr(workers_room, "_command", lambda: ["false"])
    with pytest.raises(StartError, match="worker process did not start"):
        async with running(tmp_path):
            pass


DEFECTIVE = """\
import sys
from gateway import disk, worker
def defect(*_):
    raise ZeroDivisionError
disk.write_all = defect
sys.exit(worker.main(int(sys.argv[1])))
"""


@on_uvloop
async def test_one_that_cannot_go_on_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose journal has a defect ends by itself, and its place is taken by one that receives."""
    sound = workers_room._command()
    monkeypatch.setattr(workers_room, "_command", lambda: [sys.executable, "-c", DEFECTIVE])
    async with running(tmp_path) as bench:
        monkeypatch.setattr(workers_room, "_command", lambda: sound)
        assert await bench.put(1) == NO_ANSWER
        await until(lambda: len(bench.told("worker started")) == 3)
        (died,) = bench.told("worker died")
        assert died["exit_code"] == ABANDONED
        assert bench.spool.metrics.worker_deaths.labels().total() == 1
        assert bench.defects == []


@pytest.mark.parametrize("delay_s", [0.0, 0.12, 0.3, 0.5])
@on_uvloop
async def test_a_stop_in_the_middle_of_a_replacement(tmp_path: Path, delay_s: float) -> None:
    """Whenever the stop comes, the new process hears of it, and nothing has to be killed."""
    async with running(tmp_path) as bench:
        await bench.dies(1, "worker recovered")
        await asyncio.sleep(delay_s)
        begun = time.monotonic()
        await bench.workers.stop()
        await bench.workers.close()
        assert time.monotonic() - begun < workers_room.STOP_PATIENCE_S / 2
        assert len(bench.told("worker died")) == 1


@on_uvloop
async def test_a_cut_of_one_whose_channel_has_ended(tmp_path: Path) -> None:
    """Between the end of its channel and the end of its process nothing can be told to a worker, and that is no error."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        worker = bench.workers._workers[0]
        worker._writer.transport.abort()
        await asyncio.sleep(0)
        await bench.spool.cut(USAGE)
        await until(lambda: len(bench.told("worker started")) == 3)
        assert bench.spool.census.claimable["usage"].files == 2
