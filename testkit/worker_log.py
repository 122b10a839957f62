"""The processes of a gateway with `server.workers`, as its log tells of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Gateway, Settings, merged, settings_for
from testkit.load import SEGMENT_REPORT_LIMIT


def with_workers(count: int | str, buckets: Buckets, **sections: Mapping[str, object]) -> Settings:
    """A configuration as `settings_for` makes it, with so many processes that receive."""
    settings = settings_for(
        buckets, server={"workers": count}, spool={"segment_report_limit": SEGMENT_REPORT_LIMIT, "reserve": 0}
    )
    return merged(settings, sections)


def workers(gateway: Gateway) -> dict[int, int]:
    """The process of each worker that was started last and was not told to have died."""
    found = {line["worker"]: line["pid"] for line in gateway.events("worker started")}
    died = {line["pid"] for line in gateway.events("worker died")}
    return {worker: pid for worker, pid in found.items() if pid not in died}


def kill_worker(gateway: Gateway, worker: int) -> int:
    """Kill one of them as `kill -9` does, and return which process it was."""
    pid = workers(gateway)[worker]
    os.kill(pid, signal.SIGKILL)
    return pid


def replaced(gateway: Gateway, pid: int) -> Callable[[], bool]:
    """Whether this process has died, was recovered, and all places are taken again."""

    def is_replaced() -> bool:
        deaths = [line["worker"] for line in gateway.events("worker died") if line["pid"] == pid]
        recovered = [line for line in gateway.events("worker recovered") if line["pid"] == pid]
        return bool(deaths and recovered) and deaths[0] in workers(gateway)

    return is_replaced


def kill_first(gateway: Gateway) -> list[int]:
    """Kill the first process alone, return once it is gone, and tell which processes it leaves."""
    left = list(workers(gateway).values())
    gateway.signal(signal.SIGKILL)
    assert gateway.wait() == -signal.SIGKILL
    return left


def gone(pids: list[int], timeout_s: float = 5.0) -> None:
    """Return once none of these processes runs any more; they have to go at once."""
    until(lambda: not any(map(_runs, pids)), "the processes to be gone", timeout_s=timeout_s)


def _runs(pid: int) -> bool:
    try:
        # Whoever has to take note of its end may never do so.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def writers_of(gateway: Gateway, stream: str) -> list[int]:
    """The process in the name of each file that waits in a stream's directory."""
    names = (path.name for path in Path(gateway.cache / stream).iterdir() if path.is_file())
    return [int(name.split(".")[2]) for name in names]
