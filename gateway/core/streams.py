"""The table of streams: what kinds of things are received, and by which rules each is kept, cut and named.

A further stream is a further entry in `STREAMS` with its keys in `config/schema.py`; no other code knows a stream by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.config.schema import Config


class Kind(Enum):
    """How a stream is kept and delivered."""

    REPORTS = "reports"
    """Many small JSON documents, merged into batches."""
    FILES = "files"
    """Any bytes, one object for each."""


STREAMS = (
    ("usage", Kind.REPORTS),
    ("error", Kind.REPORTS),
    ("specimen", Kind.FILES),
)


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of thing received.

    Attributes:
        name: as in paths of the API, directories, metrics and the log.
        bucket: where its objects go; the local store has a directory for each.
        prefix: what every key begins with, empty or ending in `/`.
        max_body_bytes: the largest body that is taken, decoded.
        interval_s: seconds between two batches; 0 where every file is an object of its own.
    """

    name: str
    kind: Kind
    bucket: str
    prefix: str
    max_body_bytes: int
    interval_s: float


def streams_of(config: Config) -> tuple[Stream, ...]:
    """Build the table from the configuration."""
    return tuple(_stream(config, name, kind) for name, kind in STREAMS)


def _stream(config: Config, name: str, kind: Kind) -> Stream:
    reports = kind is Kind.REPORTS
    return Stream(
        name=name,
        kind=kind,
        # Only the local store does without buckets.
        bucket=getattr(config.s3, f"{name}_bucket") or name,
        prefix=getattr(config.s3, f"{name}_prefix"),
        max_body_bytes=config.limits.report_bytes if reports else config.limits.specimen_bytes,
        interval_s=getattr(config.aggregation, f"{name}_interval") if reports else 0.0,
    )
