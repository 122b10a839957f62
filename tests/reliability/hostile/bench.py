"""A gateway under attack: well-behaved clients beside the hostile ones, and what must hold after each attack."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import yaml

from reliability.hostile.cases import Case, fates, faults
from reliability.hostile.clients import Wild, answers_in, pieces
from reliability.row import Outcome, Site
from reliability.scenario import Client
from reliability.verdict import STOP_S, ended, serve
from testkit import CHECKOUT
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import settings_for
from testkit.ledger import Fate, Ledger
from testkit.load import Load

GROUP = "Hostile clients"
MIB = 1 << 20
# What a gateway may take above its memory when idle, where an attack says nothing else.
ALLOWANCE = 64 * MIB
# A store connection more or less, and a segment.
_SPARE_DESCRIPTORS = 24
_ATTACKERS = 16
_WELL_BEHAVED = 8
_BREATH_S = 0.02


@cache
def declared_statuses() -> frozenset[int]:
    """Every status that docs/openapi.yml has for any request, but 500, which is a defect."""
    described = yaml.safe_load((CHECKOUT / "docs" / "openapi.yml").read_text())
    operations = [operation for path in described["paths"].values() for operation in path.values()]
    found = {int(status) for operation in operations for status in operation["responses"]}
    # What any HTTP server answers where there is no such path or method.
    return frozenset(found - {500} | {404, 405})


class Bench:
    """One gateway, its buckets, and the ledger of all that was sent to it.

    Args:
        site: where.
        outcome: what is wrong is blamed there.
        where: stands before it.
        sections: laid over the settings of tests.
        open_files: how many the gateway may have open; None for as many as this process.
    """

    def __init__(
        self,
        site: Site,
        outcome: Outcome,
        where: str,
        sections: Mapping[str, Mapping[str, object]],
        *,
        open_files: int | None = None,
    ) -> None:
        self.outcome = outcome
        self.where = where
        self.buckets = Buckets(site.minio.minio)
        self.gateway = site.gateway(where, settings_for(self.buckets, **sections))
        self.gateway.open_files = open_files
        self.ledger = Ledger()
        # What the well-behaved are told is apart: all of it has to be 204.
        self.load = Load(self.gateway, self.ledger, clients=_WELL_BEHAVED, breath_s=_BREATH_S)
        self.tries = 0
        self._idle_descriptors = 0
        self._idle_memory = 0

    def blame(self, fault: str) -> None:
        """Note what is wrong."""
        self.outcome.blame(f"{self.where}: {fault}")

    def descriptors(self) -> int:
        """How many the gateway has open."""
        return sum(process.num_fds() for process in self.gateway._processes())

    # --- before and after -----------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Start, and have everything loaded and opened that the first requests need."""
        serve(self.gateway, self.buckets)
        self.ordinary("before")
        until(lambda: self.gateway.left() == [], "the first requests to be delivered")
        self._idle_memory = self.gateway.forget_peak()
        self._idle_descriptors = self.descriptors()

    def ordinary(self, name: str) -> None:
        """One request of every kind, each of which has to be acknowledged."""
        client = Client(self.gateway, self.ledger, name)
        refused = self.ledger.requests(Fate.REFUSED)
        client.send([client.small("usage"), client.large("error", 300_000), client.many("usage"), client.specimen(5000)])
        if self.ledger.requests(Fate.REFUSED) != refused:
            self.blame(f"an ordinary request {name} the attack was refused")

    def check(self, allowance: int) -> None:
        """What must hold after any attack, while the gateway runs."""
        taken = self.gateway.peak_memory() - self._idle_memory
        self.outcome.notes.append(f"{self.where}: {taken / MIB:.0f} MiB more than idle at most, bound {allowance // MIB} MiB")
        if taken > allowance:
            self.blame(f"{taken / MIB:.0f} MiB of memory, {allowance / MIB:.0f} MiB are allowed")
        self.ordinary("after")
        self._until(lambda: not [name for name in self.gateway.left() if name.startswith("tmp/")], "tmp/ to be empty")
        most = self._idle_descriptors + _SPARE_DESCRIPTORS
        self._until(lambda: self.descriptors() <= most, f"the descriptors to be {most} at most again")

    def conclude(self) -> None:
        """Stop, and account for everything."""
        try:
            code = self.gateway.stop(STOP_S)
        except AssertionError as error:
            # Its text is the whole log. What it had in hand then counts as lost.
            self.blame(str(error).partition("\n")[0])
            self.gateway.kill()
        else:
            if code != 0:
                self.blame(f"exit code {code}")
        for event in ("defect", "quarantined", "library message", "request not answered"):
            for line in self.gateway.events(event)[:1]:
                self.blame(f"{event}: {line}")
        strange = [line for line in self.gateway.said().splitlines() if not line.startswith("{")]
        if strange:
            self.blame(f"it printed {strange[0][:200]}")
        if left := self.gateway.left():
            self.blame(f"left in the spool: {left[:5]}")
        if unknown := self._statuses() - declared_statuses():
            self.blame(f"answered with {sorted(unknown)}")
        # The statuses of the ledger are those of the well-behaved alone.
        if others := set(self.ledger.statuses) - {204}:
            self.blame(f"well-behaved clients were answered with {sorted(others)}")
        self.outcome.add(self.ledger.account(self.buckets), self.where)
        self.outcome.tried += max(self.tries, 1) - 1
        self.buckets.close()

    def _statuses(self) -> set[int]:
        return {line["status"] for event in ("request done", "request failed") for line in self.gateway.events(event)}

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            until(condition, what)
        except AssertionError as error:
            self.blame(f"{error}: {self.gateway.left()[:3]}, {self.descriptors()} descriptors")

    # --- cases ----------------------------------------------------------------------------------------------------

    def run(self, cases: Sequence[Case]) -> None:
        """Send each case on a connection of its own, cut anywhere, some at the same time."""
        with ThreadPoolExecutor(_ATTACKERS) as clients:
            list(clients.map(lambda numbered: self.send(numbered[1], random.Random(numbered[0])), enumerate(cases)))

    def send(self, case: Case, chance: random.Random) -> None:
        """Send one case, hear all that comes, and write down what the client was told."""
        self.tries += 1
        came = b""
        with Wild(self.gateway.port) as wild:
            for piece in pieces(case.data, chance):
                if not wild.send(piece):
                    break
            if case.half_closes:
                wild.half_close()
            try:
                came = wild.hear()
            except TimeoutError:
                self.blame(f"{case.name}: the connection is not closed")
        heard, rest = answers_in(came)
        for fault in faults(case, heard, rest):
            self.blame(f"{case.name}: {fault}{', then a reset' if wild.was_reset else ''}")
        for one, fate in fates(case, [answer.status for answer in heard]):
            self.ledger.note(one.stream, one.contents, fate)


@contextmanager
def attacked(
    site: Site,
    outcome: Outcome,
    where: str,
    *,
    allowance: int = ALLOWANCE,
    open_files: int | None = None,
    **sections: Mapping[str, object],
) -> Iterator[Bench]:
    """Attack a gateway within this block, while others send to it; afterwards everything that must hold is looked at."""
    bench = Bench(site, outcome, where, sections, open_files=open_files)
    with ended(bench.gateway):
        bench.prepare()
        with bench.load.running():
            yield bench
        bench.check(allowance)
        bench.conclude()
