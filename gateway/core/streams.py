"""Streams: what is received, and the policies by which each is admitted, kept, cut into objects, named and retried.

A stream is a record of values. `config.streams` builds all of them in one place; the code that receives, stores and delivers
asks a value of the record, never which stream it has, so that a stream can be added by configuration alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from gateway.core.backoff import RetryPolicy


@dataclass(frozen=True, slots=True)
class Form:
    """How received data stands on the disk.

    Attributes:
        name: as in the configuration.
        folders: below the directory of the stream.
        has_segments: many small bodies share a file, and are merged into batches; else each body is a file and an object.
        has_sidecar: what is known of a body stands beside it, a name that its sender gives it among that.
    """

    name: str
    folders: tuple[str, ...]
    has_segments: bool
    has_sidecar: bool


LINES = Form("reports", folders=("aggregation", "uploading"), has_segments=True, has_sidecar=False)
"""Reports: a line of JSON each."""
FILES = Form("files", folders=(), has_segments=False, has_sidecar=True)
"""Bodies of any kind."""
FORMS = {form.name: form for form in (LINES, FILES)}


@dataclass(frozen=True, slots=True)
class CutRule:
    """When waiting reports become an object: whatever comes first.

    Attributes:
        interval_s: seconds between two batches.
        max_bytes: of lines that wait.
        max_records: how many wait; 0 for any number.
    """

    interval_s: float
    max_bytes: int
    max_records: int = 0


class KeyScheme(Enum):
    """How the key of an object is made from what was fixed at receipt or claim."""

    HOURLY = "hourly"
    """By the hour, numbered: `YYYY/MM/DD/HH/YYYYMMDDHH.<host>[.<number>].jsonl.gz`."""
    BY_USER = "by user"
    """By user and day: `<user>/YYYY/MM/DD/<name>.<order>.<ext>`."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of thing received.

    Attributes:
        name: as in directories, metrics and the log.
        form: how it stands on the disk.
        path: of the API, where it is sent to.
        bucket: where its objects go; the local store has a directory for each.
        prefix: what every key begins with, empty or ending in `/`.
        max_body_bytes: the largest body that is admitted, decoded.
        cut: when it is cut into batches; None where every body is an object of its own.
        keys: how keys are made.
        retry: how long delivery waits after a failure.
    """

    name: str
    form: Form
    path: str
    bucket: str
    prefix: str
    max_body_bytes: int
    cut: CutRule | None
    keys: KeyScheme
    retry: RetryPolicy
