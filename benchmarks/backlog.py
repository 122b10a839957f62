"""Spools in which much waits, as an earlier run would have left them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from benchmarks.lines import lines
from gateway import names
from gateway.spool import FORMAT_VERSION, Sidecar

PID = 7
SPECIMEN_BYTES = 1024
SEGMENT_BYTES = 16 * 1024
# A quiet gateway cuts a segment a minute.
SEGMENT_AGE_NS = 60 * names.NANOSECONDS
SPECIMEN_AGE_NS = names.NANOSECONDS // 10


def lay_out(spool: Path) -> None:
    """An empty spool of today's format."""
    for name in (
        "tmp",
        "quarantine",
        "specimen",
        *(f"{s}/{d}" for s in ("usage", "error") for d in ("aggregation", "uploading")),
    ):
        (spool / name).mkdir(parents=True, mode=0o700)
    (spool / "FORMAT").write_text(f"{FORMAT_VERSION}\n", "ascii")


def write_specimens(spool: Path, count: int) -> int:
    """Write received files with their sidecars, and return how many deliveries they make."""
    begin = time.time_ns() - count * SPECIMEN_AGE_NS
    content = os.urandom(SPECIMEN_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    for number in range(count):
        instant = begin + number * SPECIMEN_AGE_NS
        uri = f"https://example.com/files/{number:06d}.bin"
        sidecar = Sidecar(f"{number:032x}", f"machine-{number % 1000}", uri, names.UNKNOWN_TYPE, instant, SPECIMEN_BYTES, digest)
        path = spool / "specimen" / names.spool_name(instant, PID, names.BODY, uri)
        path.write_bytes(content)
        path.with_suffix(f".{names.SIDECAR}").write_bytes(sidecar.to_json())
    os.sync()
    return count


def write_segments(spool: Path, count: int) -> int:
    """Write cut segments of usage reports, one a minute, and return how many lines they hold."""
    begin = time.time_ns() - count * SEGMENT_AGE_NS
    content = lines(SEGMENT_BYTES)
    for number in range(count):
        name = names.spool_name(begin + number * SEGMENT_AGE_NS, PID, names.CUT_SEGMENT)
        (spool / "usage" / name).write_bytes(content)
    os.sync()
    return count * content.count(b"\n")
