"""What a run is asked for on the command line, and how a row says that it cannot be run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MIB = 1 << 20
# A disk that others use as well may hold up everything for a second.
QUICK_SECONDS = 2.0
T = TypeVar("T")


class CannotRun(Exception):
    """A program, a setting or room on the disk is missing; the text says what to do."""


class Wrong(Exception):
    """What was measured did not do its work, so that its speed says nothing."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server of somebody else's that runs already, and takes a POST of a report at its address."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run.

    Attributes:
        directory: an existing directory, on the disk to be measured, that is the row's own.
        memory_directory: another one, in memory, for rows in which no disk is to be measured.
        quick: whether everything is only to be tried, with figures that say little.
        asked_rounds: how often each contestant is measured; None leaves it to the row.
        asked_seconds: how long a contestant is loaded in a round; None leaves it to the row.
        connections: of the load generators.
        body_bytes: of one large body.
        bodies: how many bodies are sent at once.
        peers: that small reports are sent to as well.
        minio: the MinIO program; None for the one that the tests build.
    """

    directory: Path
    memory_directory: Path
    quick: bool = False
    asked_rounds: int | None = None
    asked_seconds: float | None = None
    connections: int = 64
    body_bytes: int = 1024 * MIB
    bodies: int = 32
    peers: tuple[Peer, ...] = ()
    minio: Path | None = None

    def rounds(self, usual: int) -> int:
        """How often a row measures each contestant if it usually does so `usual` times."""
        return self.asked_rounds or (1 if self.quick else usual)

    def seconds(self, usual: float) -> float:
        """How long a row loads a contestant in a round."""
        return self.asked_seconds or (QUICK_SECONDS if self.quick else usual)

    def either(self, usual: T, quick: T) -> T:
        """A figure of the row's own: the usual one, or that of a quick run."""
        return quick if self.quick else usual
