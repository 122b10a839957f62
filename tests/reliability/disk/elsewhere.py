"""A row in which the path of the spool comes to lead elsewhere while a gateway works in it, and back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from reliability import scenario
from reliability.confined import Confined
from reliability.disk.namespace import Namespace
from reliability.row import Outcome, Row, Site
from reliability.verdict import conclude, delivered, ended, serve, told
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.ledger import WholeLedger
from testkit.load import Load

GROUP = "Disk faults"
_CLIENTS = 8
_ANSWERS = 150

Step = Callable[[Namespace, Path], None]


def _away(spool: Path) -> Path:
    return spool.with_name("away")


def _move(_: Namespace, spool: Path) -> None:
    spool.rename(_away(spool))


def _replace_by_nothing(namespace: Namespace, spool: Path) -> None:
    _move(namespace, spool)
    spool.mkdir()


def _replace_by_its_like(namespace: Namespace, spool: Path) -> None:
    """As a restore from a backup does: what is written there is found by nobody."""
    _move(namespace, spool)
    batches = [f"{stream}/{state}" for stream in ("usage", "error") for state in ("aggregation", "uploading")]
    for directory in ("tmp", "quarantine", "specimen", *batches):
        (spool / directory).mkdir(parents=True)


def _move_back(_: Namespace, spool: Path) -> None:
    if spool.exists():
        shutil.rmtree(spool)
    _away(spool).rename(spool)


def _mount_over(namespace: Namespace, spool: Path) -> None:
    namespace.run("mount", "-t", "tmpfs", "none", str(spool))


def _unmount(namespace: Namespace, spool: Path) -> None:
    namespace.run("umount", "--lazy", str(spool))


CASES: tuple[tuple[str, Step, Step], ...] = (
    ("moved away", _move, _move_back),
    ("an empty directory in its place", _replace_by_nothing, _move_back),
    ("one that looks alike in its place", _replace_by_its_like, _move_back),
    ("something mounted on it", _mount_over, _unmount),
)


def _elsewhere(site: Site) -> Outcome:
    outcome = Outcome()
    for number, (name, away, back) in enumerate(site.pick(list(CASES))):
        buckets = Buckets(site.minio.minio)
        with Namespace() as namespace:
            gateway = Confined(site.folder / str(number), scenario.settings(buckets), namespace.prefix)
            spool = gateway.cache
            with ended(gateway):
                _leads_elsewhere(
                    gateway, buckets, outcome, name, partial(away, namespace, spool), partial(back, namespace, spool)
                )
        buckets.remove()
        buckets.close()
    return outcome


def _leads_elsewhere(
    gateway: Confined, buckets: Buckets, outcome: Outcome, name: str, away: Callable[[], None], back: Callable[[], None]
) -> None:
    serve(gateway, buckets)
    ledger = WholeLedger()
    load = Load(gateway, ledger, clients=_CLIENTS, breath_s=0.01)
    with load.running():
        until(lambda: sum(load.answers) > _ANSWERS, "the gateway to be at work")
        away()
        until(lambda: gateway.events("cache_dir lost"), "it to find that its directory is another one")
        if gateway.get("/ready").status != 503:
            outcome.blame(f"{name}: ready, though its directory is another one")
        acknowledged = ledger.statuses[204]
        until(lambda: ledger.statuses[503] > _ANSWERS, "clients to be refused")
        if ledger.statuses[204] > acknowledged:
            outcome.blame(f"{name}: {ledger.statuses[204] - acknowledged} requests were answered with 204 meanwhile")
        back()
        until(lambda: gateway.events("cache_dir found again"), "it to find its directory again")
        after = ledger.statuses[204]
        until(lambda: ledger.statuses[204] > after + _ANSWERS, "it to be at work again")
    delivered(gateway)
    told(outcome, gateway, name)
    conclude(outcome, gateway, buckets, ledger, name)


ROWS: tuple[Row, ...] = (
    Row("disk-elsewhere", GROUP, "the path of the spool leads elsewhere for a while: moved, replaced, mounted over", _elsewhere),
)
