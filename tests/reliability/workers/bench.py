"""A gateway with workers under a mixed load, and the account of what became of all that it took."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from reliability.row import Outcome, Site
from reliability.verdict import STOP_S, ended, waiting
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.ledger import Ledger
from testkit.load import Load
from testkit.worker_log import with_workers, workers

GROUP = "Several processes"
# So many tries to a run of the gateway: its log stays short, and what it took is delivered in between.
TRIES_A_LIFE = 10
_CLIENTS, _BREATH_S = 12, 0.03
# 503 while it stops or its disk fails, 507 while its disk is full.
_STATUSES = (204, 503, 507)
# Bytes that a dying process may have written behind the last whole line. They were promised to nobody.
_TORN = re.compile(r"quarantine/\w+\.\d+\.\d+\.\d+\.jsonl\.open\.rest")


class Bench:
    """A gateway with workers.

    Args:
        site: where.
        outcome: what is counted and blamed.
        count: of workers.
        seed: of the moments.
    """

    def __init__(self, site: Site, outcome: Outcome, *, count: int = 2, seed: int = 7) -> None:
        self.outcome = outcome
        self.random = random.Random(seed)
        self.buckets = Buckets(site.minio.minio)
        self.ledger = Ledger()
        self.count = count
        # Small segments and batches, so that a death finds every step of the way under way.
        settings = with_workers(
            count,
            self.buckets,
            aggregation={"max_batch_bytes": "256KiB"},
            spool={"segment_max_bytes": "16KiB", "segment_max_age": "50ms"},
        )
        self.gateway = site.gateway("gateway", settings)
        self.torn = 0

    @contextmanager
    def under_load(self) -> Iterator[None]:
        """Serve under load within this block; all that was sent is accounted for at its end."""
        with ended(self.gateway):
            self.gateway.start()
            with Load(self.gateway, self.ledger, clients=_CLIENTS, breath_s=_BREATH_S).running():
                yield
            self.stop("at the end")
            tried = self.outcome.tried
            self.outcome.add(self.ledger.account(self.buckets), "at the end")
            # A try is a death, and there was one account of all of them.
            self.outcome.tried = tried
        if unknown := set(self.ledger.statuses) - set(_STATUSES):
            self.outcome.blame(f"answered with {sorted(unknown)}")
        if self.torn:
            self.outcome.notes.append(f"{self.torn} torn lines, promised to nobody, were set aside")
        self.buckets.remove()
        self.buckets.close()

    def restart(self, where: str) -> None:
        """Have it drain in the middle of everything, and start it again."""
        self.stop(where)
        self.gateway.start()

    def moment(self, most_s: float = 0.4) -> None:
        """Let a random time pass, which is part of the fault."""
        time.sleep(self.random.uniform(0, most_s))

    def stop(self, where: str) -> None:
        """Have it drain, and blame what is not as it should be."""
        code = self.gateway.stop(STOP_S)
        if code != 0:
            self.outcome.blame(f"{where}: exit code {code}")
        left = [name for name in waiting(self.gateway) if not _TORN.fullmatch(name)]
        if left:
            self.outcome.blame(f"{where}: left in the spool: {left[:5]}")
        self.torn += self.read_log(where)

    def read_log(self, where: str) -> int:
        """Blame what the latest run should never say, and tell how many torn lines it set aside."""
        for line in self.gateway.events("defect"):
            self.outcome.blame(f"{where}: defect: {line}")
        torn = 0
        for line in self.gateway.events("quarantined"):
            if _TORN.search(line["file"]):
                torn += 1
            else:
                self.outcome.blame(f"{where}: quarantined: {line}")
        # What is in no line of the log is a traceback, or a line that was torn.
        if strange := [line for line in self.gateway.said().splitlines() if line and not line.startswith("{")]:
            self.outcome.blame(f"{where}: said {strange[:3]}")
        return torn

    # --- its processes ----------------------------------------------------------------------------------------------

    def whole(self) -> bool:
        """Whether every worker is there."""
        return len(workers(self.gateway)) == self.count

    def until_whole(self) -> None:
        """Return once every worker is there."""
        until(self.whole, "all workers to be there")

    def processes(self) -> list[int]:
        """The worker processes that run, those that only just start too."""
        with suppress(psutil.NoSuchProcess):
            return [one.pid for one in psutil.Process(self.first).children()]
        return []

    @property
    def first(self) -> int:
        """The process that delivers."""
        return self.gateway._running().pid
