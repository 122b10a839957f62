"""One try: the gateway lives, is killed, is started again, drains; then everything is accounted for."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from reliability.kill.traced import Kill
from reliability.kill.traced_gateway import TracedGateway
from reliability.row import Site
from reliability.scenario import Client, Died, start, stop
from testkit.buckets import Buckets
from testkit.gateway_process import Gateway, Settings
from testkit.ledger import Account, Ledger

# An upload is tried out, with an empty one, before the first one that is needed.
_BEGUN = ("POST specimen begin of upload", "POST specimen begin of upload of proof")
_NOTED = ("write specimen/….body.upload",)
_PART = ("PUT specimen part 1", "PUT specimen part 1 of proof")


class Life(Protocol):
    """What a gateway goes through, from its start to its drain."""

    def settings(self, buckets: Buckets) -> Settings:
        """The configuration of the gateways."""
        ...

    def prepare(self, folder: Path, buckets: Buckets) -> Ledger:
        """Put in place what the gateway finds, in a folder that is not there yet, and say what was sent for it."""
        ...

    def clear(self, folder: Path) -> None:
        """Undo what `prepare` has done beside making files."""
        ...

    def live(self, gateway: Gateway, ledger: Ledger) -> None:
        """Start it, have it work, and end it by a drain; `Died` where it ends before."""
        ...


@dataclass
class Try:
    """What came of one try.

    Attributes:
        where: the calls at which the gateway was killed, and those at which it was to be and which it did not come to.
        was_killed: whether it came to all of them.
        account: of everything that was sent.
        faults: what is wrong beside the account.
        unnoted: uploads in parts that were begun and whose id did not reach the disk, so that nobody can abort them.
    """

    where: str = ""
    was_killed: bool = True
    account: Account = field(default_factory=Account)
    faults: list[str] = field(default_factory=list)
    unnoted: int = 0

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong."""
        return self.account.is_right and not self.faults


def attempt(site: Site, name: str, kills: Sequence[Kill], life: Life) -> Try:
    """Have a gateway live a life, once for each of the kills, then start it again without one."""
    folder = site.folder / name
    buckets = Buckets(site.minio.minio)
    made = Try()
    try:
        ledger = life.prepare(folder, buckets)
        kept = _quarantine(folder)
        for kill in kills:
            _killed(made, TracedGateway(folder, life.settings(buckets), kill), life, ledger)
        _again(made, Gateway(folder, life.settings(buckets)), ledger, list(kept))
        if _quarantine(folder) != kept:
            made.faults.append(f"what was quarantined before is not as it was: {', '.join(kept)}")
        unfinished = [key for bucket in buckets.all for key in buckets.unfinished_uploads(bucket)]
        if len(unfinished) > made.unnoted:
            made.faults.append(f"{len(unfinished)} uploads in parts are left, {made.unnoted} were not noted: {unfinished[:3]}")
        made.account = ledger.account(buckets)
        return made
    finally:
        if made.is_right:
            life.clear(folder)
            shutil.rmtree(folder)
        buckets.remove()
        buckets.close()


def recorded(site: Site, life: Life) -> list[Kill]:
    """Before each of the calls of a life in which nobody kills, and after each of them."""
    folder = site.folder / "recorded"
    buckets = Buckets(site.minio.minio)
    gateway = TracedGateway(folder, life.settings(buckets), None)
    try:
        ledger = life.prepare(folder, buckets)
        try:
            life.live(gateway, ledger)
        except Died:
            gateway.end()
            raise AssertionError(f"the gateway ended by itself with {gateway.exit_code}:\n{gateway.said()}") from None
        ledger.check(buckets)
        life.clear(folder)
        return [Kill(after=after, step=step) for after in (False, True) for step in gateway.steps()]
    finally:
        gateway.end()
        buckets.remove()
        buckets.close()
        shutil.rmtree(folder, ignore_errors=True)


def _killed(made: Try, gateway: TracedGateway, life: Life, ledger: Ledger) -> None:
    died = True
    try:
        life.live(gateway, ledger)
        died = False
    except Died:
        pass
    except AssertionError as error:
        made.faults.append(f"it stood still: {error}")
    finally:
        gateway.end()
    killed_at = gateway.killed_at()
    made.where += f"{', then ' if made.where else ''}{killed_at or gateway.plan}"
    made.was_killed &= killed_at is not None
    made.unnoted += gateway.came_to(*_BEGUN, perhaps=True) - gateway.came_to(*_NOTED, perhaps=False)
    if gateway.came_to(*_PART, perhaps=False) > gateway.came_to(*_NOTED, perhaps=True):
        made.faults.append("a part was sent before the id of its upload was on disk")
    made.faults += _told(gateway)
    if died and killed_at is None:
        made.faults.append(f"it ended by itself with {gateway.exit_code}: {gateway.said()[-500:]}")


def _quarantine(folder: Path) -> dict[str, bytes]:
    """What is set aside, by its path in the spool."""
    spool = folder / "spool"
    found = sorted(path for path in (spool / "quarantine").rglob("*") if path.is_file())
    return {str(path.relative_to(spool)): path.read_bytes() for path in found}


def _again(made: Try, gateway: Gateway, ledger: Ledger, kept: Sequence[str]) -> None:
    """Start it without being in its way, have it take something and drain, and look what is left but for what is to be kept."""
    try:
        start(gateway)
        client = Client(gateway, ledger, "again")
        client.send([client.small("usage"), client.small("error"), client.specimen(1000)])
        stop(gateway)
    except Died:
        made.faults.append(f"the next start did not drain: {gateway.said()[-500:]}")
    except AssertionError as error:
        made.faults.append(f"the next start stood still: {error}")
    finally:
        with suppress(ProcessLookupError):
            gateway.kill()
    if left := [name for name in gateway.left() if name not in kept]:
        made.faults.append(f"left in the spool: {', '.join(left[:5])}")
    made.faults += _told(gateway)


def _told(gateway: Gateway) -> list[str]:
    """What it said that no kill is a reason for."""
    return [f"{event}: {found}" for event in ("quarantined", "defect") for found in gateway.events(event)]
