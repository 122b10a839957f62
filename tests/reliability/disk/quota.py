"""A row in which the file system grants less than it shows: a quota, which only a write finds out.

The gateway takes what comes while the store is away, until nothing more is granted, and the store comes back. On btrfs not
even a rename is granted then, so that what waits can become no batch without room that was kept for it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reliability.confined import Confined
from reliability.disk.goes_on import takes_everything
from reliability.disk.namespace import Namespace
from reliability.disk.small_disk import MIB, STATUSES, ChunkedLoad
from reliability.opened import OpenedLedger
from reliability.proxy.server import FaultProxy
from reliability.row import CannotRun, Outcome, Row, Site
from reliability.scenario import settings
from reliability.verdict import conclude, delivered, ended, serve, told
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import merged

GROUP = "Disk faults"
_QUOTA = 12 * MIB
_DISK = 512 * MIB
_FILLER = "filler"


# Of what is granted there are to be hundreds of files, not thousands.
_LARGER = {
    "aggregation": {"max_batch_bytes": "1MiB"},
    "spool": {"reserve": 0, "segment_max_bytes": "128KiB", "segment_report_limit": "16KiB"},
}


@dataclass(frozen=True)
class _Case:
    """A file system, and what becomes of the gateway on it.

    Attributes:
        kind: of the file system: btrfs, with a quota of the directory; or xfs, which has no more than that free.
        is_killed: whether the gateway is killed when nothing more is granted, and started again.
        fills: whether somebody else takes what is left, and gives it back only at the end.
    """

    kind: str
    is_killed: bool = False
    fills: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{', killed' * self.is_killed}{', filled' * self.fills}"


CASES = (
    _Case("btrfs", fills=True),
    _Case("xfs", is_killed=True),
    _Case("btrfs", is_killed=True),
    _Case("xfs", fills=True),
    _Case("btrfs"),
)


class _Granted:
    """A directory to which so much is granted, on a file system of its own, seen from a namespace alone."""

    def __init__(self, folder: Path, kind: str) -> None:
        folder.mkdir(parents=True)
        self._image, self._mountpoint = folder / "image", folder / "mounted"
        self._kind = kind
        self.namespace = Namespace()
        self.directory = self._mountpoint / "granted"

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Make it, and have it go with the block."""
        with self._image.open("wb") as image:
            image.truncate(_DISK)
        self._mountpoint.mkdir()
        _run(f"mkfs.{self._kind}", "-q", "-f", str(self._image))
        with self.namespace:
            self.namespace.run("mount", "-o", "loop", str(self._image), str(self._mountpoint))
            try:
                self._limit()
                yield
            finally:
                self.namespace.run("umount", "--lazy", str(self._mountpoint))
        self._image.unlink()

    def _limit(self) -> None:
        mounted, granted = str(self._mountpoint), str(self.directory)
        if self._kind == "btrfs":
            self.namespace.run("btrfs", "quota", "enable", mounted)
            self.namespace.run("btrfs", "subvolume", "create", granted)
            self.namespace.run("btrfs", "qgroup", "limit", str(_QUOTA), granted)
            return
        self.namespace.run("mkdir", granted)
        seen = os.statvfs(self.namespace.seen(self._mountpoint))
        taken = seen.f_bavail * seen.f_frsize - _QUOTA
        self.namespace.run("fallocate", "-l", str(taken), str(self._mountpoint / _FILLER))

    def fill(self) -> None:
        """Have somebody else take all that is left, to the last page."""
        filler = self.directory / _FILLER
        write = 'dd if=/dev/urandom bs=$size oflag=append conv=notrunc,fsync of="$1" 2>/dev/null'
        self.namespace.run("sh", "-c", f"for size in 1M 64k 4k; do {write}; done; true", "sh", str(filler))

    def make_room(self) -> None:
        """Give back what was taken so."""
        self.namespace.run("rm", "-f", str(self.directory / _FILLER))


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CannotRun(f"there is no {command[0]} (Debian: btrfs-progs, xfsprogs)") from error
    if done.returncode != 0:
        raise CannotRun(f"{command[0]}: {done.stderr.strip()}")


def _quota(site: Site) -> Outcome:
    outcome = Outcome()
    for number, case in enumerate(site.pick(list(CASES))):
        granted = _Granted(site.folder / str(number), case.kind)
        buckets = Buckets(site.minio.minio)
        with granted.mounted(), FaultProxy(site.minio.minio) as proxy:
            spool, namespace = granted.directory / "spool", granted.namespace
            made = merged(settings(buckets), {"aws": {"endpoint": proxy.endpoint}, **_LARGER})
            gateway = Confined(
                site.folder / str(number), {**made, "cache_dir": str(spool)}, namespace.prefix, cache=namespace.seen(spool)
            )
            with ended(gateway):
                try:
                    _on_quota(gateway, buckets, proxy, granted, outcome, case)
                except AssertionError as error:
                    outcome.blame(f"{case}: {error}")
        buckets.remove()
        buckets.close()
    return outcome


def _on_quota(gateway: Confined, buckets: Buckets, proxy: FaultProxy, granted: _Granted, outcome: Outcome, case: _Case) -> None:
    ledger = OpenedLedger()
    serve(gateway, buckets)
    proxy.refuse()
    with ChunkedLoad(gateway, ledger, clients=8, breath_s=0.001).running():
        if case.fills:
            until(lambda: ledger.statuses[204] >= 200, "requests to be taken")
            granted.fill()
        until(lambda: ledger.statuses[507] >= 100, "requests to be answered with 507", timeout_s=90)
        if case.is_killed:
            gateway.kill()
    if case.is_killed:
        gateway.start()
    proxy.accept()
    delivered(gateway, "what was taken to be delivered without anybody's help")
    granted.make_room()
    takes_everything(gateway, ledger, "after")
    delivered(gateway)
    told(outcome, gateway, str(case), STATUSES)
    conclude(outcome, gateway, buckets, ledger, str(case))


ROWS: tuple[Row, ...] = (
    Row("disk-quota", GROUP, "a quota of which the free space says nothing is used up while the store is away", _quota),
)
