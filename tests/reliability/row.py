"""What a row of the crash matrix is: one fault, produced so many times, and the account of everything that was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from testkit.gateway_process import Gateway
from testkit.ledger import Account
from testkit.servers.minio import MinioProcess


class CannotRun(Exception):
    """The fault cannot be produced on this machine; the text says why, and stands in the table."""


@dataclass
class Outcome:
    """What came of a row.

    Attributes:
        tried: how many times the fault was produced.
        acknowledged, delivered, lost, doubled: lines and files, over all tries.
        wrong: of these what was there though it was refused, or was never sent.
        faults: what went wrong, a line each, the first few; a row without any has held.
        notes: what else was seen: memory, how often it was told in the log.
    """

    tried: int = 0
    acknowledged: int = 0
    delivered: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, account: Account, where: str) -> None:
        """Count one try; `where` says which, if it went wrong."""
        self.tried += 1
        self.acknowledged += account.acknowledged
        self.delivered += account.delivered
        self.lost += account.lost
        self.doubled += account.doubled
        self.wrong += account.there_though_refused + account.never_sent
        self.faults += [f"{where}: {example}" for example in account.examples]

    def join(self, other: Outcome) -> None:
        """Take in what came of more tries."""
        for counted in ("tried", "acknowledged", "delivered", "lost", "doubled", "wrong", "faults", "notes"):
            setattr(self, counted, getattr(self, counted) + getattr(other, counted))

    def blame(self, fault: str) -> None:
        """Note what is wrong beside the account: a process that did not end, a file left behind."""
        self.faults.append(fault)

    def as_json(self) -> dict[str, Any]:
        """For the state of an interrupted run."""
        return asdict(self)


@dataclass(frozen=True)
class Site:
    """Where a row works.

    Attributes:
        folder: its own, empty, on a real disk.
        minio: a MinIO of the matrix's own, which a row may stop and start again.
        share: of the tries that a row would make, how many it makes: 1 for all, 0.1 for a tenth.
    """

    folder: Path
    minio: MinioProcess
    share: float = 1.0

    def of(self, count: int) -> int:
        """So many tries, of so many that there are; at least one."""
        return max(1, round(count * self.share))

    def pick(self, candidates: list[Any]) -> list[Any]:
        """As many of the candidates as are to be tried, evenly spread, the first and the last among them."""
        wanted = self.of(len(candidates))
        if wanted >= len(candidates):
            return candidates
        if wanted == 1:
            return candidates[:1]
        return [candidates[round(number * (len(candidates) - 1) / (wanted - 1))] for number in range(wanted)]

    def gateway(self, name: str, settings: Mapping[str, Any], **environment: str) -> Gateway:
        """A gateway in a folder of its own, not started."""
        return Gateway(self.folder / name, settings, environment)


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: by which it is asked for: `kill-receive`.
        group: the heading under which it stands.
        fault: what is done, in a few words, for the table.
        run: does it; raises `CannotRun` where it cannot be done.
    """

    name: str
    group: str
    fault: str
    run: Callable[[Site], Outcome]
