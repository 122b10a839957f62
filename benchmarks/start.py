"""The row `start`: how long a start takes, and how much memory, with much waiting in the spool."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backlog import lay_out, write_segments, write_specimens
from benchmarks.figures import Result, Series, table
from benchmarks.gateway_process import Gateway
from benchmarks.memory import memory_of
from benchmarks.settings import Settings, Wrong

SPECIMENS = (10_000, 50_000, 100_000)
SEGMENTS = (1_000, 5_000, 10_000)
SECONDS = 6.0
# The start with nothing waiting is taken off all others, so it is the middle one of so many.
EMPTY_STARTS = 3
LOOK_S = 0.05
# A figure counts as linear, or flat, if the largest backlog does not pass the smallest by more than this.
# Two starts of the same spool differ by as much, so that less than this says nothing.
NOISE_S = 0.05
WANTED_LINEARITY = 1.5
WANTED_MIB = 16.0
_SENT = re.compile(rb" (?:usage|specimen) sent .*\bitems=(\d+)")


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        count: files that waited.
        listening_s: from the start of the process to the moment it listens.
        listening_mib: resident memory at that moment.
        share: how much of what waited was delivered while it was watched, 1 for all.
        delivery_s: for how long it was watched.
        peak_mib: the most resident memory up to then.
    """

    count: int
    listening_s: float
    listening_mib: float
    share: float
    delivery_s: float
    peak_mib: float


class Sent:
    """Counts what the log says was sent, as the log grows."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read = 0
        self.items = 0

    def look(self) -> int:
        """Read what is new, up to the last whole line, and return how many items were sent so far."""
        with self._log.open("rb") as file:
            file.seek(self._read)
            whole = file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._read += len(whole)
        self.items += sum(int(items) for items in _SENT.findall(whole))
        return self.items


def run(settings: Settings) -> Result:
    """Start with specimens, then with segments waiting."""
    result = Result("start: with much waiting in the spool")
    empty = sorted((_start(settings, 0, _nothing) for _ in range(EMPTY_STARTS)), key=lambda start: start.listening_s)[
        EMPTY_STARTS // 2
    ]
    for what, counts, write in (("specimens", SPECIMENS, write_specimens), ("segments", SEGMENTS, write_segments)):
        starts = [_start(settings, count, write) for count in settings.counts or counts]
        _tell(result, what, empty, starts)
    result.notes.append("The spool and the store were in memory, so that the figures are the program's and not the disk's.")
    result.notes.append("Of each backlog as much was delivered as the time allowed; the figures are per file that was delivered.")
    result.notes.append(
        "Segments are one a minute, so that 60 of them make a batch; intervals of one second have them cut at once."
    )
    return result


def _nothing(_spool: Path, _count: int) -> int:
    return 0


def _start(settings: Settings, count: int, write: Callable[[Path, int], int]) -> Start:
    directory = settings.memory_directory / "start"
    lay_out(directory / "spool")
    items = write(directory / "spool", count)
    with Gateway(directory, {"LIGHTFILE6_AGGREGATION_USAGE_INTERVAL": "1s"}) as gateway:
        listening_mib = memory_of(gateway.pid).now_mib
        sent, seconds = _deliver(Sent(gateway.log), items, settings.seconds or SECONDS)
        share = sent / items if items else 1.0
        return Start(count, gateway.started_s, listening_mib, share, seconds, memory_of(gateway.pid).peak_mib)


def _deliver(sent: Sent, items: int, seconds: float) -> tuple[int, float]:
    """Watch until all is sent or the time is up; how much was sent, and the seconds."""
    begun = time.perf_counter()
    while (done := sent.look()) < items and time.perf_counter() - begun < seconds:
        time.sleep(LOOK_S)
    if items and not done:
        raise Wrong(f"nothing was delivered within {seconds:g} seconds")
    return done, time.perf_counter() - begun


def _tell(result: Result, what: str, empty: Start, starts: Sequence[Start]) -> None:
    rows = [
        (
            f"{start.count:,}",
            f"{start.listening_s:.2f}",
            "" if start is empty else f"{_recovery_us(start, empty):.0f}",
            f"{start.listening_mib:.1f}",
            f"{start.share:.0%} in {start.delivery_s:.1f}",
            "" if start is empty else f"{_delivery_us(start):.0f}",
            f"{start.peak_mib:.1f}",
        )
        for start in (empty, *starts)
    ]
    head = ("listening after s", "more, µs a file", "MiB then", "delivered, s", "µs a file", "peak MiB")
    result.tables.append(table((f"waiting {what}", *head), rows))
    *smaller, most = starts
    if not smaller:
        return
    recovery = Series(tuple(_recovery_us(most, empty) / _recovery_us(each, empty) for each in smaller))
    delivery = Series(tuple(_delivery_us(most) / _delivery_us(each) for each in smaller))
    memory = Series(tuple(most.peak_mib - each.peak_mib for each in smaller))
    compared = f"{most.count:,} {what} to {' and '.join(f'{each.count:,}' for each in smaller)}"
    result.at_most(f"start, µs a file, {compared}: ratio", WANTED_LINEARITY, recovery, 2)
    result.at_most(f"delivery, µs a file, {compared}: ratio", WANTED_LINEARITY, delivery, 2)
    result.at_most(f"peak MiB, {compared}: difference", WANTED_MIB, memory)


def _recovery_us(start: Start, empty: Start) -> float:
    """What each waiting file adds to the start; where that cannot be told from noise, the noise."""
    return max(start.listening_s - empty.listening_s, NOISE_S) / start.count * 1e6


def _delivery_us(start: Start) -> float:
    return start.delivery_s / (start.share * start.count) * 1e6
