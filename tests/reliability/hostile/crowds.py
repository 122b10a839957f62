"""Rows of clients that are many: ones that stay and say little, and ones that go away in the middle."""

from __future__ import annotations

import gzip
import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from gateway.web.fastlane.connection import HOLD_S
from reliability.hostile.bench import MIB, Bench, attacked
from reliability.hostile.cases import NDJSON, Sent, good, good_file, good_lines, head, in_chunks, lines, put
from reliability.hostile.clients import Wild
from reliability.row import CannotRun, Outcome, Site
from testkit.ledger import Fate

# --- many that stay ------------------------------------------------------------------------------------------------

MANY = 10_000
LEAST_MANY = 1000
# What a connection may take, and what may be taken however few there are.
CONNECTION_BYTES = 40 << 10
FIXED_BYTES = 64 * MIB
# Of this process and of the gateway beside those connections.
_OTHER_DESCRIPTORS = 1000


def many(site: Site) -> Outcome:
    """Connections that stay open: idle, answered, within a head, within a body."""
    outcome = Outcome()
    with _descriptors(max(LEAST_MANY, site.of(MANY))) as count:
        allowance = FIXED_BYTES + count * CONNECTION_BYTES
        # Nobody is idle for so long that it would be ended meanwhile.
        limits = {"body_timeout": "10m", "keepalive_timeout": "10m"}
        with attacked(site, outcome, "many", allowance=allowance, limits=limits) as bench, ExitStack() as stack:
            before = bench.ledger.requests(Fate.ACKNOWLEDGED)
            wilds = [stack.enter_context(Wild(bench.gateway.port)) for _ in range(count)]
            for number, wild in enumerate(wilds):
                wild.send(_little(number).data[: _LITTLE[number % 4]])
            for number in range(1, count, 4):
                _hear(bench, wilds[number], _little(number))
            bench.tries += count
            if bench.descriptors() < count:
                bench.blame(f"{count} clients are connected, and the gateway has {bench.descriptors()} descriptors")
            bench.ordinary("during")
            others = bench.ledger.requests(Fate.ACKNOWLEDGED) - before - count // 4
            outcome.notes.append(f"{count} connections at a time, {others} answers to others meanwhile")
    return outcome


# How much of its report each sends: nothing, all, half the head, and all but the last byte.
_LITTLE: tuple[int | None, ...] = (0, None, 40, -1)


def _little(number: int) -> Sent:
    return good(f"many-{number}")


def _hear(bench: Bench, wild: Wild, one: Sent) -> None:
    answer = wild.begin_of_answer(len(b"HTTP/1.1 204"))
    taken = answer == b"HTTP/1.1 204"
    bench.ledger.note(one.stream, one.contents, Fate.ACKNOWLEDGED if taken else Fate.REFUSED)
    if not taken:
        bench.blame(f"one of many was answered {answer!r}")


@contextmanager
def _descriptors(wanted: int) -> Iterator[int]:
    """Raise the limit of open files, which the gateway inherits, and say how many connections it is good for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_DESCRIPTORS
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), max(hard, needed)))
    except (ValueError, OSError):
        # Only root may raise the hard one.
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        count = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _OTHER_DESCRIPTORS)
        if count < LEAST_MANY:
            raise CannotRun(f"no more than {hard} files can be opened (ulimit -Hn)")
        yield count
    finally:
        # The hard one stays where it is: who is not root could not raise it again.
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


# --- many that go --------------------------------------------------------------------------------------------------

ABORTS = 6000
WAVES = 8
WAVE = 300
_GOING = 16


def aborts(site: Site) -> Outcome:
    """Clients that go away at every point of a request and of its answer, politely or not."""
    outcome = Outcome()
    with attacked(site, outcome, "aborts") as bench:
        with ThreadPoolExecutor(_GOING) as clients:
            ends = Counter(clients.map(lambda number: _abort(bench, number), range(site.of(ABORTS))))
        bench.tries += site.of(ABORTS)
        outcome.notes.append(", ".join(f"{count} {end.value}" for end, count in ends.items()))
        for number in range(site.of(WAVES)):
            _wave(bench, number)
    return outcome


def _wave(bench: Bench, number: int) -> None:
    """Clients that go away just when the fast lane gives what they have sent of a body to the ordinary one."""
    with ExitStack() as stack:
        wilds = []
        for client in range(WAVE):
            wild = stack.enter_context(Wild(bench.gateway.port))
            wild.send(good(f"wave-{number}-{client}").data[:-1])
            wilds.append((wild, time.monotonic() + HOLD_S))
        for wild, due in wilds:
            # The moment is the fault itself.
            threading.Event().wait(max(0.0, due - time.monotonic()))
            wild.socket.close()
    bench.tries += WAVE


def _request(number: int) -> Sent:
    """Of every kind some, most of them such that a part of them could be taken for a whole."""
    name = f"gone-{number}"
    # Some such that they come in more than one piece, and are on the disk before they end.
    is_large = number % 40 < 8
    large = lines(name, 300, 2000) if is_large else lines(name, 20)
    claimed = f"Content-Type: {NDJSON}"
    body = b"\n".join(large) + b"\n"
    kinds = (
        lambda: good(name),
        lambda: good_lines(name, 20),
        lambda: Sent(put("/usage", body, claimed), contents=large),
        lambda: Sent(head("/usage", "Transfer-Encoding: chunked", claimed) + in_chunks(body, 50_000), contents=large),
        lambda: Sent(put("/usage", gzip.compress(body), claimed, "Content-Encoding: gzip"), contents=large),
        lambda: good_file(name, 700_000 if is_large else 3000),
        lambda: Sent(head(f"/specimen?uri={name}", "Transfer-Encoding: chunked") + in_chunks(body, 9000), "specimen", (body,)),
        lambda: Sent(put("/usage", good(name).contents[0] + b" " * 3000), contents=(good(name).contents[0] + b" " * 3000,)),
    )
    return kinds[number % len(kinds)]()


def _abort(bench: Bench, number: int) -> Fate:
    """One that goes away; gives what it can know of its request."""
    chance = random.Random(number)
    one = _request(number)
    start_of_body = one.data.index(b"\r\n\r\n") + 4
    phase = chance.choice(("connected", "head", "no body", "body", "body", "body", "last byte", "sent", "sent", "answered"))
    size = {
        "connected": 0,
        "head": chance.randrange(1, start_of_body),
        "no body": start_of_body,
        "body": chance.randrange(start_of_body, len(one.data)),
        "last byte": len(one.data) - 1,
    }.get(phase, len(one.data))
    fate = Fate.UNANSWERED if size == len(one.data) else Fate.REFUSED
    with Wild(bench.gateway.port) as wild:
        if size and not wild.send(one.data[:size]):
            bench.blame(f"a request of which {size} bytes were sent found its connection closed")
        if phase == "answered" and wild.begin_of_answer(12) == b"HTTP/1.1 204":
            fate = Fate.ACKNOWLEDGED
        if chance.random() < 0.5:
            wild.reset()
        elif chance.random() < 0.5:
            wild.half_close()
    bench.ledger.note(one.stream, one.contents, fate)
    return fate
