"""Rows in which the disk is broken for a while: under load, while the gateway is killed, and when it starts."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from reliability import scenario
from reliability.confined import Confined
from reliability.disk.goes_on import takes_everything
from reliability.disk.mistrust import wrongs
from reliability.disk.owed import SOMEBODY, ToldLedger, owed
from reliability.disk.strace import Fault, Strace, command, steps
from reliability.row import Outcome, Row, Site
from reliability.scenario import Client, Died, FullLedger
from reliability.verdict import conclude, delivered, ended, serve, told
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Settings, merged
from testkit.ledger import Fate, Ledger
from testkit.load import Load, Request

GROUP = "Disk faults"


def _settings_under_load(buckets: Buckets) -> Settings:
    # After a restart each batch asks for the keys of those before it, so there must not be hundreds of them in an hour.
    over: Settings = {
        "aggregation": {"max_batch_bytes": "256KiB"},
        # A stop in the middle of a fault is not to take long.
        "shutdown": {"request_timeout": "2s", "drain_timeout": "5s"},
    }
    return merged(scenario.settings(buckets), over)


# --- many fail ---------------------------------------------------------------------------------------------------

BROKEN_DISKS = (
    (Fault(("fdatasync",), "EIO", "2+"),),
    (Fault(("fsync",), "EIO", "2+"),),
    (Fault(("writev",), "ENOSPC", "2+"),),
    # As a quota says it, and some file systems not before the sync.
    (Fault(("fdatasync",), "EDQUOT", "2+"),),
    # Nothing can be taken back either, so that nobody may be answered.
    (Fault(("fdatasync", "ftruncate"), "EIO", "2+"),),
    (Fault(("writev",), "ENOSPC", "2+"), Fault(("ftruncate",), "EIO", "1+")),
    (Fault(("fsync",), "EIO", "2+"), Fault(("unlink",), "EIO", "1+")),
    (Fault(("rename",), "EIO", "1+"),),
    (Fault(("unlink", "rmdir"), "EIO", "1+"),),
    (Fault(("mkdir",), "ENOSPC", "1+"),),
    (Fault(("openat",), "EMFILE", "3+"),),
    (Fault(("writev", "rename", "unlink", "mkdir", "rmdir", "ftruncate"), "EROFS", "1+"),),
    (Fault(("fdatasync", "fsync", "writev", "rename", "unlink", "mkdir", "rmdir", "ftruncate"), "EIO", "4+"),),
)
_ENOUGH_FAILURES = 24
_ENOUGH_ANSWERS = 60
# No report is taken while these fail.
_ANSWERED_BY = ("fdatasync", "writev")


def _until_mended(site: Site) -> Outcome:
    """Under load the disk breaks, stays broken for a while, and is mended: no restart."""
    outcome = Outcome()
    buckets, ledger = Buckets(site.minio.minio), ToldLedger()
    gateway = Confined(site.folder / "gateway", _settings_under_load(buckets))
    with ended(gateway):
        serve(gateway, buckets)
        tries = site.pick(list(BROKEN_DISKS))
        with Load(gateway, ledger, clients=8, breath_s=0.05).running():
            for number, faults in enumerate(tries):
                said = " and ".join(map(str, faults))
                refused = ledger.refusals()
                with Strace(gateway.pid, site.folder / f"{number}.strace", *faults) as strace:
                    _has_failed(strace, 3 if faults[0].calls == ("mkdir",) else _ENOUGH_FAILURES)
                takes_everything(gateway, ledger, f"after-{number}")
                outcome.faults += [f"{said}: {wrong}" for wrong in wrongs(strace.calls())]
                # A draft that was begun before may be anything.
                whose = owed(steps(strace.calls(), str(gateway.cache))) - {SOMEBODY}
                outcome.faults += [f"{said}: {stream} was not told" for stream in ledger.untold(whose, refused)]
        delivered(gateway)
        conclude(outcome, gateway, buckets, ledger, "at the end", tries=len(tries))
    outcome.notes.append(f"answers: {dict(ledger.statuses)}, {ledger.requests(Fate.UNANSWERED)} without one")
    return outcome


def _has_failed(strace: Strace, times: int) -> None:
    until(lambda: strace.failed() >= times, f"{times} calls to fail")


def _goes_on(ledger: Ledger, what: str) -> None:
    enough = ledger.requests(Fate.ACKNOWLEDGED) + _ENOUGH_ANSWERS
    until(lambda: ledger.requests(Fate.ACKNOWLEDGED) >= enough, what)


def _not_synced(number: int) -> Fault:
    return Fault(("fsync",), "EIO", f"{number}+")


def _not_removed(number: int) -> Fault:
    return Fault(("unlink",), "EIO", f"{number}+")


def _not_in_place(site: Site) -> Outcome:
    """What was put in place cannot be synced: it is taken away again, or its sender must not be told that it was not kept."""
    outcome = Outcome()
    # A specimen has two syncs and two removals: those of its sidecar, and those of its body.
    tries: dict[str, tuple[tuple[Fault, ...], Callable[[Client], list[Request]]]] = {
        "report": ((_not_synced(1),), lambda client: [client.large("usage")]),
        "specimen": ((_not_synced(2),), lambda client: [client.specimen(3000)]),
        "small": ((_not_synced(1),), lambda client: [client.small("usage")]),
        "report-stays": ((_not_synced(1), _not_removed(1)), lambda client: [client.large("usage")]),
        "sidecar-stays": ((_not_synced(1), _not_removed(1)), lambda client: [client.specimen(3000)]),
        "specimen-stays": ((_not_synced(2), _not_removed(2)), lambda client: [client.specimen(3000)]),
        "small-stays": ((_not_synced(1), _not_removed(1)), lambda client: [client.small("usage")]),
        "all-stay": (
            (_not_synced(1), _not_removed(1)),
            lambda client: [client.large("usage"), client.large("error"), client.small("usage"), client.specimen(100)],
        ),
    }
    buckets, ledger = Buckets(site.minio.minio), FullLedger()
    gateway = Confined(site.folder / "gateway", scenario.settings(buckets))
    with ended(gateway):
        serve(gateway, buckets)
        for name, (faults, requests) in tries.items():
            takes_everything(gateway, ledger, f"before-{name}")
            delivered(gateway)
            acknowledged = ledger.requests(Fate.ACKNOWLEDGED)
            with Strace(gateway.pid, site.folder / f"{name}.strace", *faults) as strace, suppress(Died):
                client = Client(gateway, ledger, name)
                client.send(requests(client))
            if ledger.requests(Fate.ACKNOWLEDGED) > acknowledged:
                outcome.blame(f"{name}: acknowledged though no directory was synced")
            if not strace.failed():
                outcome.blame(f"{name}: no call has failed")
            delivered(gateway, f"what is left of {name} to be delivered")
        conclude(outcome, gateway, buckets, ledger, "at the end", tries=len(tries))
    outcome.notes.append(f"{ledger.requests(Fate.UNANSWERED)} were not answered, {ledger.requests(Fate.REFUSED)} refused")
    return outcome


# --- the gateway dies of it, or beside it ------------------------------------------------------------------------


def _killed(site: Site) -> Outcome:
    """Killed as soon as calls have failed, or every fourth time asked to stop, it is started again on a sound disk."""
    outcome = Outcome()
    kinds = ("fdatasync", "fsync", "writev", "rename", "unlink")
    tries = site.pick(
        [
            Fault((kind,), "ENOSPC" if kind == "writev" else "EIO", f"{number}{more}")
            for number, kind, more in itertools.product((1, 2, 4), kinds, ("", "+"))
        ]
    )
    buckets, ledger = Buckets(site.minio.minio), FullLedger()
    gateway = Confined(site.folder / "gateway", _settings_under_load(buckets))
    with ended(gateway):
        serve(gateway, buckets)
        with Load(gateway, ledger, clients=8, breath_s=0.03).running():
            for number, fault in enumerate(tries):
                _goes_on(ledger, "the load to go on")
                refused = ledger.requests(Fate.REFUSED)
                with Strace(gateway.pid, site.folder / f"{number}.strace", fault) as strace:
                    _has_failed(strace, 1)
                    if fault.when.endswith("+") and fault.calls[0] in _ANSWERED_BY:
                        # What was answered with an error is not to be there for the next start.
                        until(lambda refused=refused: ledger.requests(Fate.REFUSED) > refused, "an error to be told")  # type: ignore[misc]
                    if number % 4 == 3 and (code := gateway.stop()) not in (0, 3):
                        outcome.blame(f"{fault}: exit code {code}")
                    gateway.kill()
                told(outcome, gateway, str(fault))
                gateway.start()
            _goes_on(ledger, "the load to go on")
        delivered(gateway)
        conclude(outcome, gateway, buckets, ledger, "at the end", tries=len(tries))
    return outcome


def _at_start(site: Site) -> Outcome:
    """Killed under load, it is started on a disk on which one call fails, each time a later one, until it starts all the same."""
    outcome = Outcome()
    buckets, ledger = Buckets(site.minio.minio), FullLedger()
    gateway = Confined(site.folder / "gateway", _settings_under_load(buckets))
    tries = 0
    with ended(gateway):
        serve(gateway, buckets)
        with Load(gateway, ledger, clients=8, breath_s=0.03).running():
            for kind in site.pick(["fsync", "unlink", "rename", "rmdir", "fdatasync", "mkdir", "writev"]):
                _goes_on(ledger, "the load to go on")
                gateway.kill()
                # A short row passes over some.
                for number in itertools.count(1, max(1, round(0.3 / site.share))):
                    fault = Fault((kind,), "EIO", str(number))
                    tries += 1
                    if _starts_with(gateway, site.folder / "start.strace", fault, outcome):
                        break
                gateway.prefix = []
                gateway.start()
        delivered(gateway)
        conclude(outcome, gateway, buckets, ledger, "at the end", tries=tries)
    return outcome


def _starts_with(gateway: Confined, log: Path, fault: Fault, outcome: Outcome) -> bool:
    """Whether it serves although a call has failed; it is killed then. Else it has to say what is wrong, and end."""
    gateway.prefix = command(log, [fault], fault.calls)
    gateway.launch()
    until(lambda: gateway.events("listening") or not gateway.is_running, "the gateway to listen, or to end")
    if gateway.events("listening"):
        gateway.kill()
        return True
    code = gateway.wait()
    if code != 1 or "cache_dir" not in gateway.said() or "Traceback" in gateway.said():
        outcome.blame(f"{fault} at the start: exit code {code}: {gateway.said()[-500:]}")
    return False


ROWS: tuple[Row, ...] = (
    Row("disk-broken", GROUP, "calls on the disk fail under load, until the disk is mended", _until_mended),
    Row("disk-stuck", GROUP, "what was put in place cannot be synced, nor, in most tries, taken away again", _not_in_place),
    Row("disk-kill", GROUP, "a call on the disk fails under load, and the gateway is killed", _killed),
    Row("disk-start", GROUP, "after a kill, calls on the disk fail at the start", _at_start),
)
