"""The row `body`: one large body against `dd` with sync, then many at once for the memory they take."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Result, Series, table
from benchmarks.gateway_process import Gateway
from benchmarks.memory import Memory, forget_peak, memory_of
from benchmarks.settings import MIB, CannotRun, Settings, Wrong

ROUNDS = 3
WANTED_RATIO = 0.70
WANTED_MIB = 24.0
PATTERN_BYTES = 16 * MIB
SETTLE_S = 1.0
DELIVERY_TIMEOUT_S = 120.0
_DD_SECONDS = re.compile(r"copied, ([0-9.]+(?:e-?[0-9]+)?) s")


def run(settings: Settings) -> Result:
    """Measure `dd` and the gateway in turn, then the memory."""
    _require_room(settings)
    with _source(max(settings.body_bytes, settings.bodies_bytes)) as source, Gateway(settings.directory / "gateway") as gateway:
        time.sleep(SETTLE_S)
        idle = memory_of(gateway.pid)
        one = _one_at_a_time(settings, gateway, source)
        forget_peak(gateway.pid)
        many = _send(gateway, settings.bodies, settings.bodies_bytes, source)
        peak = memory_of(gateway.pid)
        sent = [settings.body_bytes] * ((settings.rounds or ROUNDS) + 1) + [settings.bodies_bytes] * settings.bodies
        _verify(gateway, {size: _digest(source, size) for size in sent}, sent)
    return _result(settings, one, (idle, peak), many)


def _require_room(settings: Settings) -> None:
    # Nothing is removed between the rounds, so that no disk is busy with what was removed when it is measured.
    wanted = settings.body_bytes * (2 * (settings.rounds or ROUNDS) + 2) + settings.bodies_bytes * settings.bodies + 1024 * MIB
    free = shutil.disk_usage(settings.directory).free
    if free < wanted:
        raise CannotRun(
            f"{settings.directory} has {free // MIB} MiB free and {wanted // MIB} are needed; see --size and --bodies"
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


def _one_at_a_time(settings: Settings, gateway: Gateway, source: int) -> tuple[Series, Series]:
    """MiB/s of the gateway and of `dd`, in turn; the first round of each only warms."""
    received: list[float] = []
    written: list[float] = []
    for number in range((settings.rounds or ROUNDS) + 1):

        def receive() -> None:
            received.append(_send(gateway, 1, settings.body_bytes, source))

        def write(number: int = number) -> None:
            written.append(_dd(settings.directory / f"dd.{number}", settings.body_bytes, source))

        # Who comes first changes, because disks that allow bursts are kinder to whoever does.
        for measure in (receive, write) if number % 2 else (write, receive):
            measure()
    for path in settings.directory.glob("dd.*"):
        path.unlink()
    return Series(tuple(received[1:])), Series(tuple(written[1:]))


def _dd(target: Path, size: int, source: int) -> float:
    """MiB/s, by its own word."""
    command = ["dd", f"if=/proc/self/fd/{source}", f"of={target}", "bs=1M", f"count={size // MIB}", "conv=fdatasync"]
    environment = os.environ | {"LC_ALL": "C"}
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, pass_fds=(source,)).stderr
    found = _DD_SECONDS.search(said)
    if found is None:
        raise Wrong(f"dd did not say how long it took:\n{said}")
    return size / MIB / float(found[1])


def _send(gateway: Gateway, count: int, size: int, source: int) -> float:
    """MiB/s from the first connect to the last answer, of all together."""
    command = [sys.executable, "-m", "benchmarks.sender", *map(str, (gateway.port, count, size, source))]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, pass_fds=(source,)).stdout)
    if said["statuses"] != [204] * count:
        raise Wrong(f"bodies were answered with {said['statuses']}")
    return count * size / MIB / float(said["seconds"])


def _digest(source: int, size: int) -> str:
    made = hashlib.sha256()
    for start in range(0, size, MIB):
        made.update(os.pread(source, min(MIB, size - start), start))
    return made.hexdigest()


def _verify(gateway: Gateway, digests: dict[int, str], sent: list[int]) -> None:
    """Every body is in the store, whole."""
    gateway.stop()
    root = gateway.objects / "specimen"
    found: list[int] = []
    for path in root.rglob("*.bin"):
        size = path.stat().st_size
        told = json.loads((gateway.objects / ".metadata" / "specimen" / f"{path.relative_to(root)}.json").read_bytes())
        if told["sha256"] != digests.get(size):
            raise Wrong(f"{path} is not what was sent")
        found.append(size)
    if sorted(found) != sorted(sent):
        raise Wrong(f"{len(sent)} bodies were acknowledged and {len(found)} are in the store")


def _result(settings: Settings, one: tuple[Series, Series], memory: tuple[Memory, Memory], many: float) -> Result:
    received, written = one
    idle, peak = memory
    one_mib, each_mib = settings.body_bytes // MIB, settings.bodies_bytes // MIB
    result = Result("body: large specimens")
    rows = [
        (f"`dd conv=fdatasync`, {one_mib:,} MiB", written.show(), ""),
        (f"gateway, one body of {one_mib:,} MiB", received.show(), received.over(written).show(2)),
        (f"gateway, {settings.bodies} bodies of {each_mib:,} MiB at once, together", f"{many:,.0f}", ""),
    ]
    result.tables.append(table(("", "MiB/s", "of `dd`"), rows))
    above = peak.peak_mib - idle.now_mib
    rows = [
        ("idle, after the start", f"{idle.now_mib:.1f}", f"{idle.anonymous_mib:.1f}"),
        (f"peak with {settings.bodies} bodies at once", f"{peak.peak_mib:.1f}", ""),
        ("after them", f"{peak.now_mib:.1f}", f"{peak.anonymous_mib:.1f}"),
    ]
    result.tables.append(table(("memory, MiB", "resident", "of it anonymous"), rows))
    result.at_least("gateway / `dd`, one body", WANTED_RATIO, received.over(written))
    result.at_most(f"MiB above idle, {settings.bodies} bodies at once", WANTED_MIB, Series((above,)))
    result.notes.append("Both write the same random bytes from memory to the same disk; the gateway hashes them as well.")
    result.notes.append("Delivery to the local store runs at the same time; it links files and copies nothing.")
    result.notes.append("After the run every body was found in the store with the hash of what was sent.")
    return result
