"""A row in which two gateways run on one directory, though each of them has done what it can against that."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from reliability import scenario
from reliability.confined import Confined
from reliability.disk.two_mounts import TwoMounts, unrecorded
from reliability.row import Outcome, Row, Site
from reliability.verdict import conclude, ended, told
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Gateway, merged
from testkit.ledger import WholeLedger
from testkit.load import Load

GROUP = "Disk faults"
_CLIENTS = 6
_TRIES = 6
_ANSWERS = 200


@dataclass
class _Pair:
    """Two gateways with one spool, each of which sees it through a mount of its own."""

    mounts: TwoMounts
    buckets: Buckets
    folder: Path
    ledger: WholeLedger = field(default_factory=WholeLedger)

    def __post_init__(self) -> None:
        self.first, self.second = (self._gateway(number, mount) for number, mount in enumerate(self.mounts.mounts))

    def _gateway(self, number: int, mount: Path) -> Confined:
        # Segments that stay open for longer than the other gateway takes to cut and to send them.
        spool = {"segment_max_age": "1h", "segment_max_bytes": "64MiB"}
        settings = merged(scenario.settings(self.buckets), {"cache_dir": str(mount / "spool"), "spool": spool})
        return Confined(self.folder / str(number), settings, self.mounts.prefix, cache=self.mounts.below / "spool")

    def load(self, gateway: Gateway, number: int) -> Load:
        """Clients of one gateway."""
        return Load(gateway, self.ledger, clients=_CLIENTS, first=number * _CLIENTS, breath_s=0.005)


def _two_gateways(site: Site) -> Outcome:
    outcome = Outcome()
    for number in range(site.of(_TRIES)):
        buckets = Buckets(site.minio.minio)
        with TwoMounts(site.folder / str(number)) as mounts:
            pair = _Pair(mounts, buckets, site.folder / f"gateways-{number}")
            with ended(pair.first, pair.second):
                _both_run(pair, outcome, f"try {number}")
        buckets.remove()
        buckets.close()
    return outcome


def _both_run(pair: _Pair, outcome: Outcome, where: str) -> None:
    first, second = pair.first, pair.second
    first.start()
    one, other = pair.load(first, 0), pair.load(second, 1)
    with one.running():
        until(lambda: sum(one.answers) > _ANSWERS, "the first to be at work")
        with unrecorded(pair.mounts.below / "spool"):
            _start_at_last(second)
            with other.running():
                until(lambda: sum(other.answers) > _ANSWERS, "the second to be at work as well")
        until(lambda: first.events("cache_dir lost") or second.events("cache_dir lost"), "one to find the other's record")
    for gateway in (first, second):
        told(outcome, gateway, where)
        gateway.stop()
    # All that either of them has promised is on the disk or in the store.
    first.start()
    conclude(outcome, first, pair.buckets, pair.ledger, where)


def _start_at_last(gateway: Gateway) -> None:
    """What the other one does meanwhile may keep it from putting the spool in order: then it says so, and is started again."""
    for _ in range(20):
        gateway.launch()
        until(lambda: gateway.events("listening") or not gateway.is_running, "the second to listen, or to give up")
        if gateway.is_running:
            gateway.port = int(gateway.events("listening")[0]["address"].rpartition(":")[2])
            return
        gateway.wait()
    raise AssertionError(f"the second never started:\n{gateway.said()[-2000:]}")


ROWS: tuple[Row, ...] = (
    Row("disk-two-gateways", GROUP, "two gateways run on one directory, whose locks and records neither sees", _two_gateways),
)
