"""A row in which the disk is small against the reports, which do not compress, and has to let go of all of them."""

from __future__ import annotations

import base64
import os
import random
import time
from dataclasses import dataclass

from gateway.core import clock
from gateway.spool import names
from reliability.disk.goes_on import takes_everything
from reliability.disk.small_disk import MIB, Disk, FullDisk
from reliability.row import Outcome, Row, Site
from reliability.verdict import delivered
from testkit.deadlines import until
from testkit.ledger import Fate

GROUP = "Disk faults"
SEED = 20_261_121
# More than have room beside the reserve, and nearly as many as have room without one.
_REPORTS = 18
# Text of so many characters takes 1.3 MB, and four fifths of that in an archive.
_RANDOM_BYTES = 1_040_000
_KILLS = 3
_MOST_S = 0.4


@dataclass(frozen=True)
class _Case:
    """A small disk, and what becomes of it.

    Attributes:
        disk: its size and its reserve.
        fills: whether somebody else takes all that is left of it.
        is_claimed: whether all that waits was claimed for one batch, while there was room, by a gateway that was killed.
        kills: how often the gateway is killed while the store is away, and again while it takes what it gets.
    """

    disk: Disk
    fills: bool = False
    is_claimed: bool = False
    kills: int = 0

    def __str__(self) -> str:
        killed = f", killed {2 * self.kills} times" * bool(self.kills)
        return f"{self.disk}{', filled' * self.fills}{', claimed' * self.is_claimed}{killed}"


_WITH_RESERVE, _WITHOUT = Disk(24 * MIB, reserve=4 * MIB), Disk(24 * MIB)
CASES = (
    _Case(_WITH_RESERVE, is_claimed=True),
    _Case(_WITH_RESERVE),
    _Case(_WITHOUT, fills=True),
    _Case(_WITHOUT, fills=True, is_claimed=True),
    _Case(_WITH_RESERVE, kills=_KILLS),
    _Case(_WITHOUT, fills=True, is_claimed=True, kills=_KILLS),
)


def _small(site: Site) -> Outcome:
    outcome = Outcome()
    source = random.Random(SEED)
    unpacked = 0
    for number, case in enumerate(site.pick(list(CASES))):
        try:
            unpacked += _on_disk(site, outcome, case, str(number), source)
        except AssertionError as error:
            # What is stuck for good can be neither delivered nor accounted for.
            outcome.blame(f"{case}: {error}")
    outcome.notes.append(f"{unpacked} files were sealed as they were, not counting those before a kill")
    return outcome


def _on_disk(site: Site, outcome: Outcome, case: _Case, name: str, source: random.Random) -> int:
    """Return how many files were sealed as they were in the last life."""
    is_held = case.fills or case.is_claimed
    # Else what comes first is sealed before the last has come.
    bench = FullDisk(site, case.disk, name, interval="1h" if is_held else "1s", max_batch_bytes=None)
    with bench.running(outcome, str(case), tries=lambda: 1 + 2 * case.kills):
        bench.proxy.refuse()
        _send(bench, source)
        if is_held:
            _start_on_what_is_left(bench, case)
        unpacked = _empty(bench, case, source, outcome)
        bench.disk.make_room()
        takes_everything(bench.gateway, bench.ledger, f"after-{name}")
    return unpacked


def _start_on_what_is_left(bench: FullDisk, case: _Case) -> None:
    bench.gateway.kill()
    if case.is_claimed:
        _claim_by_hand(bench)
    if case.fills:
        bench.disk.fill(leave=0)
    soon = {"usage_interval": "1s", "error_interval": "1s"}
    bench.gateway.configure(aggregation=soon, spool={"segment_max_age": "1s"})
    bench.gateway.start()


def _empty(bench: FullDisk, case: _Case, source: random.Random, outcome: Outcome) -> int:
    """See `_on_disk`; nobody makes room."""
    _kill_now_and_then(bench, case, source)
    until(lambda: not _unsealed(bench), f"all to be sealed on {case}")
    unpacked = len(bench.gateway.events("sealed unpacked"))
    if case.fills and not case.kills and not unpacked:
        outcome.blame(f"{case}: nothing was sealed as it was")
    bench.proxy.accept()
    _kill_now_and_then(bench, case, source)
    delivered(bench.gateway, f"all to leave {case}")
    for line in bench.gateway.events("aggregation failed")[:1]:
        outcome.blame(f"{case}: {line}")
    return unpacked


def _send(bench: FullDisk, source: random.Random) -> None:
    """Reports one after the other, the last of which may find no room."""
    for number in range(_REPORTS):
        report = b'{"id":"small-%d","text":"%s"}' % (number, base64.b85encode(source.randbytes(_RANDOM_BYTES)))
        status = bench.gateway.put("/usage", report)
        bench.ledger.statuses[status] += 1
        bench.ledger.note("usage", [report], Fate.ACKNOWLEDGED if status == 204 else Fate.REFUSED)


def _claim_by_hand(bench: FullDisk) -> None:
    """What a claim did that knew nothing of the room for the archive: all of it is in one batch."""
    spool = bench.gateway.cache / "usage"
    waiting = [path for path in spool.iterdir() if path.is_file()]
    received = names.parse_spool_name(waiting[0].name)
    assert received is not None
    batch = spool / "aggregation" / str(names.new_batch(clock.hour_of(received.received_ns), "small-host", os.urandom(16)))
    batch.mkdir()
    for path in waiting:
        path.rename(batch / path.name)


def _kill_now_and_then(bench: FullDisk, case: _Case, source: random.Random) -> None:
    for _ in range(case.kills):
        # Any moment is as good as another: no event is waited for.
        time.sleep(source.uniform(0, _MOST_S))
        bench.gateway.kill()
        bench.gateway.start()


def _unsealed(bench: FullDisk) -> list[str]:
    return [name for name in bench.gateway.left() if not name.startswith(("tmp/", "usage/uploading/"))]


ROWS: tuple[Row, ...] = (
    Row("disk-small", GROUP, "a disk of 24 MB, full of reports that do not compress, lets go of them, also after kills", _small),
)
