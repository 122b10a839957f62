"""A row in which the disk of a gateway with workers is really full, and one of these dies on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from reliability.confined import Confined
from reliability.disk.goes_on import takes_everything
from reliability.disk.small_disk import KIB, MIB, ChunkedLoad, SmallDisk
from reliability.proxy.server import FaultProxy
from reliability.row import Outcome, Row, Site
from reliability.verdict import conclude, delivered, ended, serve, told
from reliability.workers.bench import GROUP
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.ledger import Fate, Ledger
from testkit.worker_log import replaced, with_workers, workers

SIZES = (256 * KIB, 1 * MIB, 2 * MIB, 128 * KIB)
STATUSES = (204, 503, 507)


class _Gateway(Confined):
    """A gateway on a small disk; the command that puts it there becomes the gateway."""

    @property
    def pid(self) -> int:
        """See `Confined.pid`: its children are workers."""
        return self._running().pid


def _settings(buckets: Buckets, proxy: FaultProxy, folder: str) -> Mapping[str, object]:
    settings = with_workers(
        2,
        buckets,
        aws={"endpoint": proxy.endpoint},
        aggregation={"max_batch_bytes": "16KiB"},
        spool={"segment_max_bytes": "64KiB", "segment_max_age": "1s"},
    )
    return {**settings, "cache_dir": folder}


def _full(site: Site) -> Outcome:
    """The store is away and the disk fills up; a worker dies on the full disk; with room all goes on by itself."""
    outcome = Outcome()
    for number, size in enumerate(site.pick(list(SIZES))):
        _on_disk(site, outcome, str(number), size)
    return outcome


def _on_disk(site: Site, outcome: Outcome, name: str, size: int) -> None:
    buckets, ledger, folder = Buckets(site.minio.minio), Ledger(), site.folder / name
    where = f"{size // KIB} KiB"
    with FaultProxy(site.minio.minio) as proxy, SmallDisk(folder / "disk", size=size) as disk:
        settings = _settings(buckets, proxy, str(folder / "disk" / "spool"))
        gateway = _Gateway(folder, dict(settings), disk.prefix, cache=disk.seen / "spool")
        with ended(gateway):
            serve(gateway, buckets)
            proxy.refuse()
            disk.fill(leave=size // 2)
            with ChunkedLoad(gateway, ledger, clients=8, breath_s=0.01).running():
                until(lambda: ledger.statuses[507] >= 50, "requests to be answered with 507")
                pid = workers(gateway)[1]
                os.kill(pid, signal.SIGKILL)
                until(replaced(gateway, pid), "another worker on the full disk")
                refused = ledger.requests(Fate.REFUSED)
                until(lambda: ledger.requests(Fate.REFUSED) > refused + 20, "requests to be refused again")
            disk.make_room()
            proxy.accept()
            delivered(gateway, f"what was taken on a disk of {where} to be delivered")
            takes_everything(gateway, ledger, f"after-{name}")
            delivered(gateway)
            told(outcome, gateway, where, STATUSES)
            conclude(outcome, gateway, buckets, ledger, where)
    buckets.remove()
    buckets.close()


ROWS: tuple[Row, ...] = (
    Row("workers-disk-full", GROUP, "the disk is full, and one of two workers dies on it and is replaced", _full),
)
