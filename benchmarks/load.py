"""What came of a load, and how a load generator is asked for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import psutil

from benchmarks.figures import percentile


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load.

    Attributes:
        requests: that were answered with a status below 400; every other answer is an error of the benchmark.
        in_flight: requests that may have been received although their answer was not counted.
        per_s: answered requests a second.
        p50_ms, p99_ms, p999_ms: percentiles of the latencies.
        cpu_us: processor time of the server for each request, None if the server is not ours.
    """

    requests: int
    in_flight: int
    per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_us: float | None = None


class Generator(Protocol):
    """Puts one report over and over; all connections are new each time."""

    def put(self, url: str, seconds: float) -> Load:
        """Load an address; `Wrong` if any request was not answered with a status below 400."""
        ...


def load_of(latencies_us: Sequence[int], seconds: float) -> Load:
    """A load whose every latency is known; nothing was in flight at its end."""
    ordered = sorted(latencies_us)
    p50, p99, p999 = (percentile(ordered, percent) / 1000 for percent in (50, 99, 99.9))
    return Load(len(ordered), 0, len(ordered) / seconds, p50, p99, p999)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all below it have used, those that ended among them."""
    process = psutil.Process(pid)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            # Its time is its parent's children's by now; the next look finds it there.
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
