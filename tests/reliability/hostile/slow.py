"""The row of slow clients: each sends a byte a second, of a head or of a body, and the others are answered all the same."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter

from reliability.hostile.bench import Bench, attacked
from reliability.hostile.cases import good, head
from reliability.hostile.clients import Dripper, answers_in, drip
from reliability.row import Outcome, Site
from testkit.ledger import Fate

SLOW = 500
# A byte a second is no silence, however slow the machine; who says nothing for so long is ended.
# Without a least rate, so that the slowness lasts.
LIMITS = {"body_timeout": "4s", "keepalive_timeout": "5s", "body_min_rate": 0}
DRIPPING_S = 60
LEAST_S = 9
# Of what is answered without them. They cost next to nothing, but a machine may be busy with something else.
LEAST_SHARE = 0.1

HEAD, SMALL, STOPPING, CHUNKED, LARGE = "a head", "a small body", "a body that stops", "a body in chunks", "a large file"
RIGHT: dict[str, frozenset[tuple[int, ...]]] = {
    # Closed without a word after the time that a connection may be idle.
    HEAD: frozenset({()}),
    # On a machine that stands still for seconds it may be taken for one that stops.
    SMALL: frozenset({(204,), (408,)}),
    STOPPING: frozenset({(408,)}),
    # Never silent, so they may go on.
    CHUNKED: frozenset({()}),
    LARGE: frozenset({()}),
}
_GOING_ON = frozenset({CHUNKED, LARGE})


def slow(site: Site) -> Outcome:
    """Measure what is answered to others, without slow ones and with them."""
    outcome = Outcome()
    with attacked(site, outcome, "slow", limits={**LIMITS, "specimen_bytes": "5TiB"}) as bench:
        seconds = max(LEAST_S, round(site.share * DRIPPING_S))
        quiet = _answers_a_second(bench, seconds / 4)
        # Each says that it will send so much that together they would take twice the disk.
        room = shutil.disk_usage(site.folder).free * 2 // (SLOW // 5)
        drippers = [_dripper(number, room) for number in range(SLOW)]
        began, before = time.monotonic(), bench.ledger.requests(Fate.ACKNOWLEDGED)
        # One of every kind and of every size, which they must leave room for.
        drip(bench.gateway.port, drippers, seconds, lambda: bench.ordinary("during"))
        meanwhile = (bench.ledger.requests(Fate.ACKNOWLEDGED) - before) / (time.monotonic() - began)
        outcome.notes.append(f"{SLOW} slow ones: {meanwhile:.0f} answers a second, {quiet:.0f} without them")
        if meanwhile < LEAST_SHARE * quiet:
            bench.blame(f"only {meanwhile:.0f} answers a second, {quiet:.0f} without the slow ones")
        bench.tries += len(drippers)
        for fault, count in Counter(_faults(bench, drippers)).items():
            bench.blame(f"{count} times {fault}")
    return outcome


def _answers_a_second(bench: Bench, seconds: float) -> float:
    before = bench.ledger.requests(Fate.ACKNOWLEDGED)
    # It is the time that is measured in, not a wait for something.
    threading.Event().wait(seconds)
    return (bench.ledger.requests(Fate.ACKNOWLEDGED) - before) / seconds


def _dripper(number: int, room: int) -> Dripper:
    one = good(f"slow-{number}")
    kind = (HEAD, SMALL, STOPPING, CHUNKED, LARGE)[number % 5]
    if kind == HEAD:
        return Dripper(kind, b"", one.data, one.contents)
    if kind == SMALL:
        return Dripper(kind, one.data[:-6], one.data[-6:], one.contents)
    if kind == STOPPING:
        return Dripper(kind, one.data[:-6], one.data[-6:-3], one.contents)
    if kind == CHUNKED:
        start = head("/usage", "Transfer-Encoding: chunked") + b"%x\r\n" % (1 << 20)
        return Dripper(kind, start, one.contents[0] + b" " * 1000, one.contents)
    return Dripper(kind, head(f"/specimen?uri={number}", f"Content-Length: {room}"), one.contents[0] + b" " * 1000, one.contents)


def _faults(bench: Bench, drippers: list[Dripper]) -> list[str]:
    """What is wrong with how each has ended, and what it was told is written down."""
    found = []
    for dripper in drippers:
        statuses = tuple(one.status for one in answers_in(dripper.heard)[0])
        was_taken = statuses == (204,)
        bench.ledger.note("usage", dripper.contents, Fate.ACKNOWLEDGED if was_taken else Fate.REFUSED)
        if statuses not in RIGHT[dripper.kind]:
            found.append(f"{dripper.kind} was answered {statuses}")
        # After its answer a connection may linger, so that the client can read it.
        is_ended = bool(statuses) or dripper.ended_after_s is not None
        if is_ended == (dripper.kind in _GOING_ON):
            found.append(f"{dripper.kind} was {'ended' if is_ended else 'never ended'}")
    return found
