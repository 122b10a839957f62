"""What a soak has done, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from reliability.soak.plan import Deed
from reliability.soak.samples import Sample
from testkit.ledger import Account


@dataclass
class Report:
    """The figures of one soak.

    Attributes:
        seconds: how long it took, without the account.
        sent: how many requests of each kind came to which status, 0 for none.
        deeds: how often each was done; `kills` counts those of a start besides.
        outages: how many of each kind there were; they lasted `outage_s` together.
        peak: bytes that a gateway had resident at most.
        torn_segments: segments whose last line a kill has left half-written, and which was set aside.
        most_files: that were seen in the spool.
        calm: the samples of the phase without kills.
        samples: those of all other lives.
        faults: what was wrong, a line each; a soak without any has held.
    """

    seed: int
    minutes: float
    seconds: float = 0.0
    sent: Counter[tuple[str, int]] = field(default_factory=Counter)
    deeds: Counter[Deed] = field(default_factory=Counter)
    kills: int = 0
    outages: Counter[str] = field(default_factory=Counter)
    outage_s: float = 0.0
    peak: int = 0
    torn_segments: int = 0
    most_files: int = 0
    calm: list[Sample] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    account: Account = field(default_factory=Account)
    faults: list[str] = field(default_factory=list)
