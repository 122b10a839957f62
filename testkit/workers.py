"""Workers in processes of their own, which tests have receive, die and stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import orjson
import uvloop

from gateway.config.schema import Config, ServerKeys, ShutdownKeys
from gateway.config.streams import streams_of
from gateway.core.clock import Timestamps
from gateway.core.shared_counters import SharedCounters
from gateway.service.sockets import Listeners, listening_sockets
from gateway.service.workers.supervisor import Supervisor
from gateway.spool.recovery import recover
from gateway.spool.spool import Spool
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from testkit.spool import WAIT_S, new_metrics, until

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
    workers: Supervisor
    metrics: Metrics
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

    async def ready(self) -> bytes:
        """What one of them answers to whether a report would be taken."""
        reader, writer = await asyncio.open_connection(HOST, self.port)
        writer.write(b"GET /ready HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(WAIT_S):
            answer = await reader.read()
        writer.close()
        return answer

    async def put_on_both(self) -> int:
        """Have both workers receive something, and return how many reports that took."""
        for number in range(100):
            assert await self.put(number) == 204
            if self.spool.accounting.open["usage"].files == 2:
                return number + 1
        raise AssertionError("one worker has received nothing")


@asynccontextmanager
async def running(folder: Path, *, count: int = 2) -> AsyncIterator[Bench]:
    """Start workers, and have them gone at the end."""
    config = replace(
        Config(), cache_dir=folder / "spool", server=ServerKeys(workers=count), shutdown=ShutdownKeys(request_timeout=1)
    )
    log_path = folder / "log"
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    log, counters = Log("info", "json", descriptor, is_shared=True).start(), SharedCounters(count + 1)
    degraded: list[str] = []
    defects: list[str] = []
    metrics = new_metrics(counters)
    spool = Spool(config.cache_dir, streams_of(config), timestamps=Timestamps(), log=log, metrics=metrics, counters=counters)
    spool.lock.acquire()
    spool.directories.lay_out()
    assert spool.ballast.lay()
    recover(spool)
    workers = Supervisor(
        config,
        spool,
        counters,
        log=log,
        metrics=metrics,
        degraded=lambda: degraded,
        on_defect=lambda: defects.append("nobody"),
    )
    listeners = Listeners(listening_sockets([HOST], 0, count), [])
    bench = Bench(spool, workers, metrics, log_path, listeners.port(), degraded, defects)
    try:
        await workers.listen(listeners)
        await until(lambda: len(bench.told("worker started")) == count)
        yield bench
        await workers.stop(1.0)
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
        spool.lock.release()
        log.close(WAIT_S)
        os.close(descriptor)
