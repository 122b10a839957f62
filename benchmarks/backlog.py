"""Spools in which much waits, as an earlier run would have left them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from benchmarks.lines import KIB, lines
from gateway.core import clock, media_type
from gateway.spool import names
from gateway.spool.directories import FORMAT_VERSION
from gateway.spool.sidecar import Sidecar, sidecar_of

PID = 7
SPECIMEN_BYTES = KIB
# A gateway that is not busy cuts a segment a minute; so many reports are in one at 17 a second.
SEGMENT_REPORTS = 1000
SEGMENT_AGE_NS = 60 * clock.NANOSECONDS
SPECIMEN_AGE_NS = clock.NANOSECONDS // 10


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


def write_specimens(spool: Path, count: int) -> None:
    """Write received files with their sidecars."""
    begin = time.time_ns() - count * SPECIMEN_AGE_NS
    content = os.urandom(SPECIMEN_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    for number in range(count):
        instant = begin + number * SPECIMEN_AGE_NS
        uri = f"https://example.com/files/{number:06d}.bin"
        sidecar = Sidecar(
            f"{number:032x}", f"machine-{number % 1000}", uri, media_type.UNKNOWN_TYPE, instant, SPECIMEN_BYTES, digest
        )
        path = spool / "specimen" / names.spool_name(instant, instant, PID, names.BODY, uri)
        path.write_bytes(content)
        sidecar_of(path).write_bytes(sidecar.to_json())
    os.sync()


def write_reports(spool: Path, count: int) -> None:
    """Write usage reports of about 1 KiB in cut segments, one a minute."""
    # More lines than are wanted, since their length varies.
    content = b"".join(lines(SEGMENT_REPORTS * 2 * KIB).splitlines(keepends=True)[:SEGMENT_REPORTS])
    segments, rest = divmod(count, SEGMENT_REPORTS)
    if rest or content.count(b"\n") != SEGMENT_REPORTS:
        raise ValueError(f"{count} reports do not fill segments of {SEGMENT_REPORTS}")
    begin = time.time_ns() - segments * SEGMENT_AGE_NS
    for number in range(segments):
        instant = begin + number * SEGMENT_AGE_NS
        name = names.spool_name(instant, instant, PID, names.CUT_SEGMENT)
        (spool / "usage" / name).write_bytes(content)
    os.sync()
