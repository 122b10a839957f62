"""A disk so small that a few requests fill it, and a gateway on it."""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from gateway.admission.disk_room import KEPT_INODES
from reliability.calls import Step
from reliability.confined import Confined
from reliability.disk.strace import Strace, Traced, steps
from reliability.opened import OpenedLedger
from reliability.proxy.server import FaultProxy
from reliability.row import CannotRun, Outcome, Site
from reliability.scenario import PART_BYTES
from reliability.verdict import conclude, delivered, ended, serve, told
from testkit.buckets import Buckets
from testkit.gateway_process import settings_for
from testkit.load import Load, Request

KIB, MIB = 1 << 10, 1 << 20
FILLER = "filler"
_FILLING_BYTES = 1 << 16
# Above the size of what the load sends as small ones; what is larger has a file of its own.
_SEGMENT_REPORT_LIMIT = 4 * KIB
# The gateway keeps the first of these for aggregation and delivery.
_NAMES = KEPT_INODES + 600
# Nothing but room is missing.
STATUSES = (204, 507)


class SmallDisk:
    """A tmpfs in a mount namespace of its own, which goes when the row goes, however that ends.

    Args:
        mountpoint: where it is for processes that are started by `prefix`.
        size: bytes.
        inodes: how many files and directories it holds.

    Attributes:
        prefix: a command that runs another one where the disk is.
        seen: where the disk is seen from outside.
    """

    def __init__(self, mountpoint: Path, *, size: int, inodes: int = 10_000) -> None:
        self._mountpoint = mountpoint
        self._options = f"size={size},nr_inodes={inodes},mode=0700"
        self._holder: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []
        self.seen = mountpoint

    def __enter__(self) -> SmallDisk:
        self._mountpoint.mkdir(parents=True)
        own_user = [] if os.geteuid() == 0 else ["--map-root-user"]
        # It ends with its input, and the namespace with it.
        script = 'mount -t tmpfs -o "$1" none "$2" && echo mounted && exec cat'
        command = ["unshare", "--mount", *own_user, "sh", "-c", script, "sh", self._options, str(self._mountpoint)]
        try:
            self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except FileNotFoundError as error:
            raise CannotRun("there is no unshare (Debian: util-linux)") from error
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"mounted\n":
            reason = self._holder.stderr.read().decode(errors="replace").strip()
            self._end()
            raise CannotRun(f"no disk can be mounted in a namespace: {reason}")
        namespaces = ["--mount"] if not own_user else ["--mount", "--user", "--preserve-credentials"]
        self.prefix = ["nsenter", f"--target={self._holder.pid}", *namespaces, "--"]
        self.seen = Path(f"/proc/{self._holder.pid}/root{self._mountpoint}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._holder is not None:
            self._holder.communicate(timeout=10)
            self._holder = None

    def fill(self, leave: int) -> None:
        """Take the room of the disk, but for so many bytes."""
        with (self.seen / FILLER).open("ab", buffering=0) as filler:
            while (room := self.free_bytes() - leave) > 0:
                try:
                    filler.write(b"\0" * min(room, _FILLING_BYTES))
                except OSError:
                    # Somebody else has taken the rest of it.
                    return

    def fill_inodes(self, leave: int) -> None:
        """Take the names of the disk, but for so many."""
        directory = self.seen / f"{FILLER}s"
        directory.mkdir()
        for number in range(os.statvfs(self.seen).f_favail - leave):
            try:
                (directory / str(number)).touch()
            except OSError:
                return

    def make_room(self) -> None:
        """Give back all that was taken."""
        (self.seen / FILLER).unlink(missing_ok=True)
        directory = self.seen / f"{FILLER}s"
        if directory.exists():
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()

    def free_bytes(self) -> int:
        """How much room there is."""
        status = os.statvfs(self.seen)
        return status.f_bavail * status.f_frsize


class ChunkedLoad(Load):
    """A load of which every second client does not say how large its bodies are, so that the guard cannot know either."""

    def _send(self, connection: http.client.HTTPConnection, request: Request, number: int) -> bool:
        return super()._send(connection, in_chunks(request) if number % 2 else request, number)


def in_chunks(request: Request) -> Request:
    """The same with a body of unknown size."""
    pieces = (request.body[start : start + KIB] for start in range(0, len(request.body), KIB))
    # http.client sends in chunks what it cannot measure.
    return replace(request, body=cast("bytes", pieces))


@dataclass(frozen=True)
class Disk:
    """A small disk.

    Attributes:
        size: bytes.
        reserve: `spool.reserve`.
        envelope: `aggregation.envelope`.
        by_names: whether it is to be full of files rather than of bytes.
    """

    size: int
    reserve: int = 0
    envelope: bool = False
    by_names: bool = False

    def __str__(self) -> str:
        reserve = f", reserve {self.reserve // KIB} KiB" * bool(self.reserve)
        return f"{self.size // KIB} KiB{', full of names' * self.by_names}{reserve}{', envelopes' * self.envelope}"


class FullDisk:
    """A gateway on a small disk, with a proxy that can take the store away, between the first and the last line of `running`."""

    def __init__(self, site: Site, kind: Disk, name: str, *, interval: str = "1s", max_batch_bytes: str | None = "16KiB") -> None:
        self.kind = kind
        self._interval = interval
        self._max_batch_bytes = max_batch_bytes
        self.ledger = OpenedLedger()
        self.buckets = Buckets(site.minio.minio)
        self.proxy = FaultProxy(site.minio.minio)
        self._folder = site.folder / name
        self.disk = SmallDisk(self._folder / "disk", size=kind.size, inodes=_NAMES)
        self.gateway: Confined

    @contextmanager
    def running(self, outcome: Outcome, where: str, *, tries: Callable[[], int] = lambda: 1) -> Iterator[None]:
        """Serve, and account for the tries at the end."""
        with self.proxy, self.disk:
            self.gateway = Confined(self._folder, self._settings(), self.disk.prefix, cache=self.disk.seen / "spool")
            with ended(self.gateway):
                serve(self.gateway, self.buckets)
                yield
                delivered(self.gateway)
                # Here every removal succeeds, so that nothing is left for the next start.
                outcome.faults += [f"{where}: left behind: {name}" for name in self.gateway.left()]
                told(outcome, self.gateway, where, STATUSES)
                if others := set(self.ledger.statuses) - set(STATUSES):
                    outcome.blame(f"{where}: answered with {sorted(others)}")
                conclude(outcome, self.gateway, self.buckets, self.ledger, where, tries=tries())
        self.buckets.remove()
        self.buckets.close()

    def _settings(self) -> dict[str, Any]:
        settings = settings_for(
            self.buckets,
            aws={"endpoint": self.proxy.endpoint},
            aggregation={
                "max_batch_bytes": self._max_batch_bytes,
                "envelope": self.kind.envelope,
                "usage_interval": self._interval,
                "error_interval": self._interval,
            },
            s3={"part_size": PART_BYTES},
            spool={
                "segment_report_limit": _SEGMENT_REPORT_LIMIT,
                "segment_max_bytes": "64KiB",
                "segment_max_age": self._interval,
                "reserve": self.kind.reserve,
            },
        )
        return {**settings, "cache_dir": str(self._folder / "disk" / "spool")}

    def watched(self) -> Strace:
        """A strace that writes down what the gateway does."""
        return Strace(self.gateway.pid, self._folder / "strace")

    def met(self, strace: Strace) -> set[str]:
        """The steps at which the disk was full."""
        return {step.text for call, step in self._steps(strace) if call.error == "ENOSPC"}

    def done(self, strace: Strace) -> set[str]:
        """The steps that were taken."""
        return {step.text for call, step in self._steps(strace) if not call.error}

    def _steps(self, strace: Strace) -> Iterator[tuple[Traced, Step]]:
        return steps(strace.calls(), self.gateway.settings["cache_dir"])

    def fill(self) -> None:
        """Leave little room."""
        if self.kind.by_names:
            self.disk.fill_inodes(leave=KEPT_INODES + 100)
        else:
            self.disk.fill(leave=max(self.kind.size // 2, self.kind.reserve + self.kind.size // 4))
