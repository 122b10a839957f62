"""The row `bodies`: large specimens, one and many at once, against `dd` with sync, and the memory they take."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import dd
from benchmarks.figures import Result, Series, in_turn, table
from benchmarks.gateway_process import Gateway
from benchmarks.memory import memory_of
from benchmarks.settings import MIB, CannotRun, Settings, Wrong

WANTED_RATIO = 0.85
WANTED_MIB = 100.0
SMALLER_BYTES = 10 * MIB
QUICK_BYTES = 64 * MIB
PATTERN_BYTES = 16 * MIB
SETTLE_S = 1.0
SEND_TIMEOUT_S = 900.0
# For the gateway's own reserve, and for what else the disk is used for.
SPARE_BYTES = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Case:
    """Bodies of one size: `count` at once, `each` one after the other, measured so many rounds."""

    size: int
    count: int
    each: int
    rounds: int

    @property
    def name(self) -> str:
        """As it stands in the tables."""
        return f"{self.size // MIB:,} MiB, {self.count} at once"

    @property
    def total(self) -> int:
        """Bytes of a round."""
        return self.size * self.count * self.each


@dataclass(frozen=True, slots=True)
class Taken:
    """A round of the gateway: MiB/s, resident MiB when idle, and the most since its start."""

    mib_per_s: float
    idle_mib: float = 0.0
    peak_mib: float = 0.0


def run(settings: Settings) -> Result:
    """Measure `dd` and the gateway in turn, case by case."""
    cases = _cases(settings)
    _require_room(settings, max(case.total for case in cases))
    with _source(max(case.size for case in cases)) as source:
        found = [(case, _measure(settings, case, source)) for case in cases]
    return _result(found)


def _cases(settings: Settings) -> list[Case]:
    large = settings.either(settings.body_bytes, min(settings.body_bytes, QUICK_BYTES))
    return [
        Case(SMALLER_BYTES, 1, settings.either(20, 10), settings.rounds(5)),
        Case(SMALLER_BYTES, settings.bodies, settings.either(4, 1), settings.rounds(5)),
        Case(large, 1, 1, settings.rounds(5)),
        Case(large, settings.bodies, 1, settings.rounds(1)),
    ]


def _require_room(settings: Settings, most: int) -> None:
    # What a contestant has written is removed before the next one begins, since two of the largest case are too much.
    free = shutil.disk_usage(settings.directory).free
    if free < most + SPARE_BYTES:
        needed = (most + SPARE_BYTES) // MIB
        raise CannotRun(
            f"{settings.directory} has {free // MIB:,} MiB free and {needed:,} are needed; --body-size makes them smaller"
        )


@contextmanager
def _source(size: int) -> Iterator[int]:
    """A file in memory with random bytes, so that reading it costs neither side anything."""
    descriptor = os.memfd_create("body")
    try:
        pattern = os.urandom(PATTERN_BYTES)
        with open(descriptor, "wb", closefd=False) as file:
            file.writelines(pattern[: min(PATTERN_BYTES, size - start)] for start in range(0, size, PATTERN_BYTES))
        yield descriptor
    finally:
        os.close(descriptor)


def _measure(settings: Settings, case: Case, source: int) -> tuple[list[Taken], list[Taken]]:
    """What the gateway and `dd` came to, in turn."""
    digest = _digest(source, case.size)
    found = in_turn(
        {
            "gateway": partial(_gateway, settings, case, source, digest),
            "dd": partial(_dd, settings, case, source),
        },
        case.rounds,
    )
    return found["gateway"], found["dd"]


def _dd(settings: Settings, case: Case, source: int) -> Taken:
    directory = settings.directory / "dd"
    try:
        return Taken(dd.write(directory, source, case.size, count=case.count, each=case.each))
    finally:
        _remove(directory)


def _gateway(settings: Settings, case: Case, source: int, digest: str) -> Taken:
    try:
        with Gateway(settings.directory / "gateway") as gateway:
            time.sleep(SETTLE_S)
            idle = memory_of(gateway.pid)
            mib_per_s = _send(gateway, case, source)
            peak = memory_of(gateway.pid)
            gateway.stop()
            _verify(gateway.objects, case, digest)
        return Taken(mib_per_s, idle.now_mib, peak.peak_mib)
    finally:
        os.sync()


def _remove(directory: Path) -> None:
    """Remove what was written, and wait until the disk is done with that."""
    shutil.rmtree(directory)
    os.sync()


def _send(gateway: Gateway, case: Case, source: int) -> float:
    """MiB/s from the first connect to the last answer, of all together."""
    figures = (gateway.port, case.count, case.each, case.size, source)
    command = [sys.executable, "-m", "benchmarks.sender", *map(str, figures)]
    done = subprocess.run(command, check=True, capture_output=True, pass_fds=(source,), timeout=SEND_TIMEOUT_S)
    said = json.loads(done.stdout)
    if said["statuses"] != [204] * (case.count * case.each):
        raise Wrong(f"bodies were answered with {said['statuses']}")
    return case.total / MIB / float(said["seconds"])


def _digest(source: int, size: int) -> str:
    """The SHA-256 of what is sent."""
    made = hashlib.sha256()
    for start in range(0, size, MIB):
        made.update(os.pread(source, min(MIB, size - start), start))
    return made.hexdigest()


def _verify(objects: Path, case: Case, digest: str) -> None:
    """Every body is in the store with its size and hash, and the bytes of one of them are read again."""
    root = objects / "specimen"
    found = sorted(root.rglob("*.bin"))
    if len(found) != case.count * case.each:
        raise Wrong(f"{case.count * case.each} bodies were acknowledged and {len(found)} are in the store")
    for path in found:
        told = json.loads((objects / ".metadata" / "specimen" / f"{path.relative_to(root)}.json").read_bytes())
        if (path.stat().st_size, told["sha256"]) != (case.size, digest):
            raise Wrong(f"{path} is not what was sent")
    with found[-1].open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise Wrong(f"{found[-1]} does not hold what was sent")


def _result(found: Sequence[tuple[Case, tuple[list[Taken], list[Taken]]]]) -> Result:
    result = Result("bodies: large specimens, against `dd conv=fdatasync` of the same bytes")
    rows = []
    for case, (taken, written) in found:
        mine, theirs = (Series(tuple(each.mib_per_s for each in side)) for side in (taken, written))
        idle, peak = (Series(tuple(each)) for each in ((one.idle_mib for one in taken), (one.peak_mib for one in taken)))
        above = Series(tuple(one.peak_mib - one.idle_mib for one in taken))
        rates = (theirs.show(), mine.show(), mine.over(theirs).show(2))
        rows.append((case.name, *rates, idle.show(1), peak.show(1), above.show(1)))
        result.at_least(f"bodies of {case.name}: gateway / `dd`", WANTED_RATIO, mine.over(theirs))
    head = ("", "`dd` MiB/s", "gateway MiB/s", "gateway / `dd`", "idle MiB", "peak MiB", "above idle")
    result.tables.append(table(head, rows))
    largest, (taken, _) = found[-1]
    result.at_most(f"bodies of {largest.name}: peak resident MiB", WANTED_MIB, Series(tuple(one.peak_mib for one in taken)))
    result.notes.append("Both write the same random bytes from memory to the same disk; the gateway hashes them as well.")
    result.notes.append(
        "Against many bodies at once as many `dd` run at once, each of which syncs its own file, as the gateway syncs each body."
    )
    result.notes.append(
        "Delivery to the local store runs at the same time; it links files and copies nothing. "
        "Every body was found there with its size and hash, and one of each round was read again."
    )
    return result
