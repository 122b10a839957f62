"""The row `start`: what a start costs, in time and in memory, with much waiting in the spool."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backlog import lay_out, write_reports, write_specimens
from benchmarks.figures import Result, Series, table
from benchmarks.gateway_process import Gateway
from benchmarks.load import cpu_seconds
from benchmarks.memory import memory_of
from benchmarks.sentlog import Sent
from benchmarks.settings import MIB, CannotRun, Settings, Wrong

# What waits: the smallest first, so that the largest can be compared with a tenth of it.
SPECIMENS = (10_000, 100_000)
REPORTS = (100_000, 1_000_000)
WATCH_S = 8.0
QUICK_WATCH_S = 4.0
# The start with nothing waiting is taken off all others, so it is the middle one of so many.
EMPTY_STARTS = 3
LOOK_S = 0.05
# An addition of less than this to a start says nothing: two starts of the same spool differ by as much.
NOISE_S = 0.05
WANTED_LINEARITY = 1.5
WANTED_MIB = 16.0
# A million reports, what is made of them, and the files of a hundred thousand specimens.
ROOM_BYTES = 3072 * MIB


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        count: what waited.
        listening_s: from the start of the process to the moment it listens.
        listening_cpu_s: processor time up to then.
        share: how much of what waited was delivered while it was watched, 1 for all.
        watched_s: for how long it was watched.
        watched_cpu_s: processor time in that time.
        peak_mib: the most resident memory up to then.
    """

    count: int
    listening_s: float
    listening_cpu_s: float
    share: float
    watched_s: float
    watched_cpu_s: float
    peak_mib: float

    def recovery_us(self, empty: Start) -> float:
        """Processor µs that each waiting thing adds to the start; where that cannot be told from noise, the noise."""
        return max(self.listening_cpu_s - empty.listening_cpu_s, NOISE_S) / self.count * 1e6

    @property
    def delivery_us(self) -> float:
        """Processor µs for each thing that was delivered."""
        return self.watched_cpu_s / (self.share * self.count) * 1e6


def run(settings: Settings) -> Result:
    """Start with specimens, then with reports waiting."""
    _require_room(settings)
    result = Result("start: with much waiting in the spool")
    empty = sorted((_start(settings, 0, _nothing) for _ in range(EMPTY_STARTS)), key=lambda start: start.listening_cpu_s)[
        EMPTY_STARTS // 2
    ]
    for what, counts, write in (("specimens", SPECIMENS, write_specimens), ("reports", REPORTS, write_reports)):
        _tell(result, what, empty, [_start(settings, count, write) for count in counts])
    result.notes.append(
        "Spool and store were in memory, so that the figures are the program's and not the disk's. "
        "Reports wait in segments of 1,000, one a minute, as a gateway cuts them that gets 17 a second."
    )
    result.notes.append("As much was delivered as the time allowed; the figures are for each thing that was delivered.")
    result.notes.append(
        f"An addition of less than {NOISE_S:g} s to a start cannot be told from nothing, and counts as so much: such a figure "
        "stands behind a <, and the target says only that the cost does not grow faster than what waits."
    )
    return result


def _require_room(settings: Settings) -> None:
    free = shutil.disk_usage(settings.memory_directory).free
    if free < ROOM_BYTES:
        raise CannotRun(f"{settings.memory_directory} has {free // MIB:,} MiB free and {ROOM_BYTES // MIB:,} are needed")


def _nothing(_spool: Path, _count: int) -> None:
    pass


def _start(settings: Settings, count: int, write: Callable[[Path, int], None]) -> Start:
    directory = settings.memory_directory / "start"
    lay_out(directory / "spool")
    write(directory / "spool", count)
    with Gateway(directory, {"LIGHTFILE6_AGGREGATION_USAGE_INTERVAL": "1s"}) as gateway:
        listening_cpu_s = cpu_seconds(gateway.pid)
        sent, seconds = _deliver(Sent(gateway.log), count, settings.either(WATCH_S, QUICK_WATCH_S))
        watched_cpu_s = cpu_seconds(gateway.pid) - listening_cpu_s
        share = sent / count if count else 1.0
        peak_mib = memory_of(gateway.pid).peak_mib
        return Start(count, gateway.started_s, listening_cpu_s, share, seconds, watched_cpu_s, peak_mib)


def _deliver(sent: Sent, items: int, seconds: float) -> tuple[int, float]:
    """Watch until all is sent or the time is up; how much was sent, and the seconds."""
    begun = time.perf_counter()
    while (done := sent.look()) < items and time.perf_counter() - begun < seconds:
        time.sleep(LOOK_S)
    if items and not done:
        raise Wrong(f"nothing was delivered within {seconds:g} seconds")
    return done, time.perf_counter() - begun


def _shown(start: Start, empty: Start) -> str:
    mark = "< " if start.listening_cpu_s - empty.listening_cpu_s < NOISE_S else ""
    return f"{mark}{start.recovery_us(empty):.1f}"


def _tell(result: Result, what: str, empty: Start, starts: Sequence[Start]) -> None:
    rows = [
        (
            f"{start.count:,}",
            f"{start.listening_s:.2f}",
            "" if start is empty else _shown(start, empty),
            "" if start is empty else f"{start.share:.0%} in {start.watched_s:.1f}",
            "" if start is empty else f"{start.delivery_us:.1f}",
            f"{start.peak_mib:.1f}",
        )
        for start in (empty, *starts)
    ]
    head = ("listening after s", "CPU µs more, each", "delivered, s", "CPU µs each", "peak MiB")
    result.tables.append(table((f"waiting {what}", *head), rows))
    less, most = starts
    compared = f"{most.count:,} waiting {what} / {less.count:,}"
    recovery, delivery = most.recovery_us(empty) / less.recovery_us(empty), most.delivery_us / less.delivery_us
    result.at_most(f"{compared}: cost of the start, each", WANTED_LINEARITY, Series((recovery,)), 2)
    result.at_most(f"{compared}: cost of delivery, each", WANTED_LINEARITY, Series((delivery,)), 2)
    result.at_most(f"{compared}: more MiB at the peak", WANTED_MIB, Series((most.peak_mib - less.peak_mib,)))
