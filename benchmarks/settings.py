"""What a run is asked for on the command line, and how a row says that it cannot be run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20


class CannotRun(Exception):
    """A program or room on the disk is missing; the text says what to do."""


class Wrong(Exception):
    """What was measured did not do its work, so that its speed says nothing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run; None leaves a figure to the row.

    Attributes:
        directory: an existing directory, on the disk to be measured, that is the benchmark's own.
        memory_directory: another one, in memory, for rows in which no disk is to be measured.
        rounds: how often each contestant is measured.
        seconds: how long a contestant is loaded, or waited for, in a round.
        connections: of the load generator.
        body_bytes: of one large body.
        bodies: how many are sent at once.
        bodies_bytes: of each of these.
        counts: how many things wait at a start.
        minio: the MinIO program.
    """

    directory: Path
    memory_directory: Path
    rounds: int | None = None
    seconds: float | None = None
    connections: int = 64
    body_bytes: int = 1024 * MIB
    bodies: int = 16
    bodies_bytes: int = 256 * MIB
    counts: tuple[int, ...] | None = None
    minio: Path | None = None
