"""A `cache_dir` as the Go edition leaves it, and a start of the gateway on it."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.core.clock import Timestamps
from gateway.spool.go_edition.adopt import adopt, needs_adoption
from gateway.spool.go_edition.names import Adopted
from gateway.spool.recovery import Found, recover
from gateway.spool.sidecar import Sidecar
from gateway.spool.spool import Spool
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from testkit.spool import PID, START_NS, STREAMS, WAIT_S, Clock, new_metrics

# An hour before the start.
GO_NS = START_NS - 3600 * 10**9


def flat(number: int, user: str = "alice", pid: int = 1) -> str:
    """Name a flat file; `number` is its place in time."""
    return f"{GO_NS + number}.{pid}.{user}"


def archive(number: int) -> str:
    """Name an archive likewise."""
    return f"aggregate_{GO_NS + number}.gz"


def zipped(*bodies: bytes) -> bytes:
    """Give the archive of these bodies."""
    return gzip.compress(b"".join(body + b"\n" for body in bodies), mtime=0)


@dataclass
class Start:
    """A start of the gateway, up to where it would begin to receive."""

    spool: Spool
    log: Log
    log_path: Path
    metrics: Metrics

    def run(self) -> Adopted | None:
        """Do what a start does with what it finds, and give what was adopted, None where nothing had to be."""
        adopted = adopt(self.spool) if needs_adoption(self.spool) else None
        self.spool.directories.lay_out()
        return adopted

    def recover(self) -> Found:
        """Do the next step of a start."""
        return recover(self.spool)

    def reasons(self) -> dict[str, str]:
        """End the log, and give the reason for each name in the quarantine."""
        assert self.log.close(WAIT_S)
        told: list[dict[str, Any]] = [orjson.loads(line) for line in self.log_path.read_bytes().splitlines()]
        return {Path(one["file"]).name: one["reason"] for one in told if one["event"] == "quarantined"}


@contextmanager
def starting(folder: Path, clock: Clock | None = None) -> Iterator[Start]:
    """Hold the spool `folder/spool` as a starting gateway does."""
    log_path = folder / "log"
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    log, metrics = Log("debug", "json", descriptor).start(), new_metrics()
    spool = Spool(folder / "spool", STREAMS, timestamps=Timestamps(clock or Clock()), log=log, metrics=metrics)
    spool.pid = PID
    spool.lock.acquire()
    try:
        yield Start(spool, log, log_path, metrics)
    finally:
        spool.lock.release()
        log.close(WAIT_S)
        os.close(descriptor)


# --- what is there afterwards --------------------------------------------------------------------------------------


def waiting(root: Path, stream: str = "usage") -> dict[str, bytes]:
    """Give the names and the bytes of what waits for a batch; every file of it ends in a newline."""
    found = {path.name: path.read_bytes() for path in (root / stream).iterdir() if path.is_file()}
    assert all(data.endswith(b"\n") for data in found.values())
    return found


def lines(root: Path, stream: str = "usage") -> Counter[bytes]:
    """Give how often each line waits for a batch."""
    return Counter(line for data in waiting(root, stream).values() for line in data.splitlines())


def files(root: Path) -> dict[str, tuple[Sidecar, bytes]]:
    """Give the received files that wait, by the names of their bodies."""
    bodies = sorted((root / "specimen").glob("*.body"))
    return {body.name: (Sidecar.from_json(body.with_suffix(".meta").read_bytes()), body.read_bytes()) for body in bodies}


def quarantined(root: Path) -> dict[str, bytes]:
    """Give the names and the bytes of what was set aside, directories left out."""
    return {path.name: path.read_bytes() for path in (root / "quarantine").iterdir() if path.is_file()}


def counted(items: Iterable[bytes]) -> Counter[bytes]:
    """Give how often each item is there."""
    return Counter(items)
