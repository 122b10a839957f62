"""A real spool in a directory of the test's own, and faults that are put into its disk on purpose."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest

from gateway.batching import aggregate
from gateway.config.schema import Config
from gateway.config.streams import streams_of
from gateway.core import clock, disk
from gateway.core.clock import Timestamps
from gateway.core.paths import routes_of
from gateway.core.shared_counters import SharedCounters
from gateway.core.streams import Stream
from gateway.delivery.items import open_item
from gateway.spool.directories import OWN_FILES, Claimed
from gateway.spool.recovery import Found, recover
from gateway.spool.sidecar import Sidecar
from gateway.spool.spool import Spool
from gateway.stores import Outcome
from gateway.stores.local import LocalStore
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from testkit.deadlines import TIMEOUT_FACTOR

WAIT_S = 20.0 * TIMEOUT_FACTOR
# 2026-11-21T13:59:00Z: a minute before the hour turns.
START_NS = 1_795_269_540 * clock.NANOSECONDS
HOUR = "2026112113"
NEXT_HOUR = "2026112114"
PID = 7
HOST = "host-1"

STREAMS = streams_of(Config())
USAGE, ERROR, SPECIMEN = STREAMS


def new_metrics(counters: SharedCounters | None = None) -> Metrics:
    """The metrics of a gateway with the built-in streams."""
    return Metrics([stream.name for stream in STREAMS], routes_of(STREAMS), counters)


class Clock:
    """Nanoseconds since the epoch that stand still until a test moves them."""

    def __init__(self, now_ns: int = START_NS) -> None:
        self.now_ns = now_ns

    def __call__(self) -> int:
        """Give the instant."""
        return self.now_ns


@dataclass
class Bench:
    """A laid-out spool with everything it stands on."""

    spool: Spool
    clock: Clock
    log: Log
    log_path: Path
    metrics: Metrics
    # What is called after a commit, by the name of the stream.
    listeners: dict[str, Callable[[], object]]
    found: Found | None = None

    def told(self, event: str | None = None, **fields: object) -> list[dict[str, Any]]:
        """End the log and give the fields of what it says, or of one event with these fields."""
        assert self.log.close(WAIT_S)
        lines = [orjson.loads(line) for line in self.log_path.read_bytes().splitlines()]
        return [line for line in lines if event in (None, line["event"]) and fields.items() <= line.items()]

    def metric(self, name: str, **labels: str) -> float:
        """Give the value of a metric, 0 if it was never touched."""
        return self.metrics.registry.get_sample_value(f"lightfile6_{name}", labels) or 0.0

    def report(self, line: bytes, stream: Stream = USAGE, user: str = "machine-1") -> Path:
        """Commit a report of a file of its own, and give that file."""
        return self.reports([line], stream, user)

    def reports(self, lines: list[bytes], stream: Stream = USAGE, user: str = "machine-1") -> Path:
        """Commit many lines in a file of their own, and give that file."""
        draft = self.spool.new_tmp()
        disk.write_file(draft, b"".join(line + b"\n" for line in lines))
        return self.spool.commit_report(stream, draft, self.spool.timestamps.now(), user)

    def file(self, data: bytes, *, uri: str = "file:///a/b.png", user: str = "machine-1") -> Path:
        """Commit a specimen, and give its body."""
        draft = self.spool.new_tmp()
        disk.write_file(draft, data)
        received = self.spool.timestamps.now()
        sidecar = Sidecar(f"{self.spool.timestamps.next():032x}", user, uri, "image/png", received, len(data), "0" * 64)
        return self.spool.commit_file(SPECIMEN, draft, sidecar)

    def seal(self, *lines: bytes, stream: Stream = USAGE) -> Path:
        """Commit, claim, aggregate and seal one batch of these lines, and give the sealed file."""
        self.reports(list(lines), stream)
        return seal_claimed(self, claim(self, stream=stream))


def claim(bench: Bench, max_bytes: int = 1 << 30, *, stream: Stream = USAGE) -> Claimed:
    """Claim a batch that is there to be claimed."""
    claimed = bench.spool.claim(stream, max_bytes, HOST)
    assert claimed is not None
    return claimed


def seal_claimed(bench: Bench, claimed: Claimed) -> Path:
    """Aggregate and seal a claimed batch, and give the sealed file."""
    archive = bench.spool.new_tmp()
    aggregate.aggregate(claimed.sources(), archive, 1)
    return bench.spool.seal(claimed, archive)


@contextmanager
def open_bench(
    folder: Path,
    *,
    clock: Clock | None = None,
    recovered: bool = True,
    level: str = "debug",
    streams: tuple[Stream, ...] = STREAMS,
) -> Iterator[Bench]:
    """Open the spool `folder/spool` as a start of the gateway would, and give it up at the end."""
    folder.mkdir(exist_ok=True)
    log_path = folder / "log"
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    log, metrics, clock = Log(level, "json", descriptor).start(), new_metrics(), clock or Clock()
    listeners: dict[str, Callable[[], object]] = {}
    spool = Spool(
        folder / "spool",
        streams,
        timestamps=Timestamps(clock),
        log=log,
        metrics=metrics,
        on_commit=lambda stream: listeners.get(stream.name, bool)(),
    )
    spool.pid = PID
    try:
        spool.lock.acquire()
        spool.directories.lay_out()
        yield Bench(spool, clock, log, log_path, metrics, listeners, recover(spool) if recovered else None)
    finally:
        spool.lock.release()
        log.close(WAIT_S)
        os.close(descriptor)


# --- what is there -----------------------------------------------------------------------------------------------


def tree(root: Path) -> dict[str, bytes | None]:
    """Give everything under the spool but its lock and its FORMAT: files with their bytes, batches' directories as None."""
    while True:
        try:
            return _tree(root)
        except FileNotFoundError:
            # Something was renamed or removed between two looks.
            continue


def _tree(root: Path) -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and name not in OWN_FILES:
            found[name] = path.read_bytes()
        elif path.is_dir() and path.parent.name == "aggregation":
            found[name] = None
    return found


def plant(root: Path, files: Mapping[str, bytes | None]) -> None:
    """Put files, and empty directories for None, where an earlier run would have left them."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is None:
            path.mkdir()
        else:
            path.write_bytes(data)


def stored_lines(objects: Path) -> list[bytes]:
    """Give every line of every batch in a local store, sorted."""
    archives = [path for path in objects.rglob("*.jsonl.gz") if path.relative_to(objects).parts[0][0] != "."]
    return sorted(line for path in archives for line in gzip.decompress(path.read_bytes()).splitlines())


def stored_files(objects: Path, stream: Stream = SPECIMEN) -> list[bytes]:
    """Give the bytes of every object of a stream in a local store, sorted."""
    folder = objects / stream.bucket
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file())


# --- one way through, step by step and without tasks ---------------------------------------------------------------


def batch_and_deliver(spool: Spool, store: LocalStore, *, max_bytes: int = 1 << 30) -> None:
    """Take everything that waits through claim, aggregate, seal, deliver and retire, one after the other."""
    for stream in spool.streams:
        if stream is not SPECIMEN:
            _finish_claimed(spool, stream)
            while spool.claim(stream, max_bytes, HOST):
                _finish_claimed(spool, stream)
        while waiting := spool.deliverable(stream, set()):
            for path in waiting:
                _deliver(spool, stream, path, store)


def _finish_claimed(spool: Spool, stream: Stream) -> None:
    for claimed in spool.directories.claimed(stream):
        spool.settle(claimed)
        if spool.directories.sealed_as(stream, claimed.batch) is not None or not claimed.sources():
            spool.remove_sources(claimed)
            continue
        archive = spool.new_tmp()
        aggregate.aggregate(claimed.sources(), archive, 1)
        spool.seal(claimed, archive)


def _deliver(spool: Spool, stream: Stream, path: Path, store: LocalStore) -> None:
    item = open_item(spool, stream, path, None)
    # What `put` has done in a thread; hundreds of crashes are tried, and each would start an event loop.
    while store._put(item.object()) is Outcome.TAKEN:
        item.renumber(item.next_number())
    spool.retire(stream, item.path)


# --- faults ------------------------------------------------------------------------------------------------------

# Everything in `core/disk.py` that changes what a crash would leave.
CHANGES = (
    "make_directory",
    "sync_directory",
    "create",
    "write_all",
    "sync",
    "truncate",
    "shorten",
    "write_file",
    "append",
    "place",
    "replace",
    "link",
    "remove",
    "remove_directory",
    "copy_part",
    "sync_files",
)


class PowerCut(BaseException):
    """The machine went off at this call."""


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Give a folder where hundreds of crashes cost little: a killed process leaves the same there as on a disk."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@dataclass
class Crashing:
    """Lets the disk work for so many calls, and then never again: nothing a dying process does reaches it."""

    calls_left: int
    calls: int = 0
    failed: list[str] = field(default_factory=list)
    error: Callable[[], BaseException] = PowerCut
    for_ever: bool = True

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the fault into `gateway.disk`, and into the one method of paths with which it tidies up."""
        for name in CHANGES:
            patch.setattr(disk, name, self._failing(getattr(disk, name), name))
        if self.for_ever:
            patch.setattr(Path, "unlink", self._off(Path.unlink))

    def _failing(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            self.calls += 1
            self.calls_left -= 1
            if self.calls_left < 0 and (self.for_ever or not self.failed):
                self.failed.append(name)
                raise self.error()
            return function(*arguments)

        return call

    def _off(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self.failed:
                raise self.error()
            return function(*arguments, **keywords)

        return call


class Trace:
    """Writes down which changes of the disk were made, in their order, each with the path it concerned."""

    def __init__(self, patch: pytest.MonkeyPatch, root: Path) -> None:
        self.steps: list[str] = []
        self._root = root
        for name in CHANGES:
            patch.setattr(disk, name, self._noting(getattr(disk, name), name))

    def _noting(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any) -> Any:
            subject = arguments[0]
            if isinstance(subject, int):
                subject = Path(os.readlink(f"/proc/self/fd/{subject}"))
            result = function(*arguments)
            if isinstance(subject, Path):
                place = subject.relative_to(self._root) if subject.is_relative_to(self._root) else subject
                self.steps.append(f"{name} {place}")
            else:
                self.steps.extend(f"{name} {path.relative_to(self._root)}" for path in subject)
            return result

        return call

    def note(self, step: str) -> None:
        """Write down something else that happened in between."""
        self.steps.append(step)

    def first(self, beginning: str) -> int:
        """Give the place of the first step that begins so."""
        return next(index for index, step in enumerate(self.steps) if step.startswith(beginning))

    def last(self, beginning: str) -> int:
        """Give the place of the last step that begins so."""
        return max(index for index, step in enumerate(self.steps) if step.startswith(beginning))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a thread of the program changes without telling anybody, and fail when it does not come."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (there is no event: the program needs none)
            await asyncio.sleep(0.001)


async def soon(event: asyncio.Event) -> None:
    """Wait for an event, and fail when it does not come."""
    async with asyncio.timeout(WAIT_S):
        await event.wait()
