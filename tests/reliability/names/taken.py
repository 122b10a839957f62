"""Rows about names that are taken: keys that come free again before an answer is heard, files that stand where one would come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

from gateway.core import clock, media_type
from gateway.spool import names
from gateway.spool.sidecar import Sidecar
from reliability.names.bench import MIDDLE, NamingBench
from reliability.names.fake_clock import passed_on_time, unheard_on_time
from reliability.names.keys import batch_key
from reliability.proxy.server import Rule
from reliability.row import Outcome, Row, Site
from reliability.verdict import delivered
from testkit.deadlines import until
from testkit.gateway_process import HOST
from testkit.ledger import Fate

GROUP = "Names"
# As `NamingBench.put` sends them.
USER, URI = "alice", "file:///same.bin"
# Each request gives a few names, of which one is that of what it has sent. The period is that of neither kind of request.
NUMBERS = [number for number in range(1, 400) if number % 7 < 3]
REQUESTS = 20


def _free_again(site: Site) -> Outcome:
    """A batch is sent under a later key and not heard of, and when the gateway comes back the earlier keys are free."""
    outcome = Outcome()
    for last in site.pick([1, 2, 12]):
        (folder := site.folder / str(last)).mkdir()
        bench = NamingBench(replace(site, folder=folder), now=MIDDLE)
        bench.plant(MIDDLE, *range(1, last + 1))
        with bench.running(outcome, f"{last} keys are free again"):
            _sent_unheard(bench, batch_key(MIDDLE, HOST, last + 1))
            bench.gateway.kill()
            bench.buckets.take_away(bench.buckets.usage)
            _hear_again(bench)
            bench.gateway.start()
            delivered(bench.gateway)
    return outcome


def _sent_unheard(bench: NamingBench, key: str) -> None:
    bench.proxy.clear()
    unheard = Rule(unheard_on_time, ("PutObject",), only=(bench.buckets.usage, key))
    bench.proxy.add(unheard, Rule(passed_on_time))
    bench.put(bench.gateway, "usage", b'{"sent":"unheard"}')
    until(lambda: bench.proxy.unheard("PutObject"), f"{key} to be stored unheard")


def _hear_again(bench: NamingBench) -> None:
    bench.proxy.clear()
    bench.proxy.add(Rule(passed_on_time))


def _read_away(site: Site) -> Outcome:
    """A reader removes what it has read, over kills and stops: under no key does it ever find something else."""
    outcome = Outcome()
    bench = NamingBench(site, now=MIDDLE)
    bench.plant(MIDDLE, 2, 5)
    lives = max(3, site.of(12))
    with bench.running(outcome, "a reader that removes", tries=lives):
        with bench.buckets.being_read(bench.buckets.usage):
            for life in range(lives):
                with bench.load(first=100 * life).running():
                    until(lambda life=life: bench.sent() >= 4 * (life + 1), "batches of this life")  # type: ignore[misc]
                # All of it is gone from the disk and from the bucket at every third end.
                if life % 3 == 2:
                    delivered(bench.gateway)
                bench.stop(bench.gateway) if life % 3 == 1 else bench.gateway.kill()
                bench.gateway.start()
        delivered(bench.gateway)
    outcome.notes.append(f"{bench.sent()} batches in one hour")
    for key in bench.buckets.used_again:
        outcome.blame(f"{key} was used for something else before")
    return outcome


def _standing_there(site: Site) -> Outcome:
    """Files stand in the spool under names that the gateway is about to give, as if a person had put them back."""
    outcome = Outcome()
    bench = NamingBench(site, now=MIDDLE, stands=True, may_refuse=True)
    # What was put there is not to be taken for the gateway's own before it has asked for the names.
    bench.gateway.configure(aggregation={"usage_interval": "1h", "max_batch_bytes": "64MiB"})
    with bench.running(outcome, "names that are taken", tries=REQUESTS):
        bench.proxy.refuse()
        _put_there(bench, int(bench.gateway.events("gateway starting")[0]["pid"]))
        for number in range(REQUESTS):
            bench.put(bench.gateway, "usage", b'{"number":%d,"text":"%s"}' % (number, b"x" * 6000))
            bench.put(bench.gateway, "specimen", b"number %d" % number)
        bench.gateway.kill()
        bench.gateway.configure(aggregation={"usage_interval": "1s"})
        bench.proxy.accept()
        bench.gateway.start()
        delivered(bench.gateway)
    refused = bench.ledger.requests(Fate.REFUSED)
    outcome.notes.append(f"{refused} of {2 * REQUESTS} requests found their name taken")
    if not 0 < refused < 2 * REQUESTS:
        outcome.blame("either all requests or none have found their name taken")
    return outcome


def _put_there(bench: NamingBench, pid: int) -> None:
    now = int(MIDDLE.timestamp()) * 10**9
    for stream, name, data, content in _files(now, [now + number for number in NUMBERS], pid):
        (bench.gateway.cache / stream / name).write_bytes(data)
        if content:
            bench.ledger.note(stream, [content], Fate.ACKNOWLEDGED)


def _files(now: int, orders: list[int], pid: int) -> Iterator[tuple[str, str, bytes, bytes]]:
    """Reports, and files with their sidecars: the stream, the name, what is in it, and what is to be delivered of it."""
    for order in orders:
        report = b'{"there":%d}' % order
        line = f'{{"user":"{USER}","received_at":"{clock.iso(now)}","report":{report.decode()}}}\n'
        yield "usage", names.spool_name(order, now, pid, names.WHOLE_REPORT, USER), line.encode(), report
        body = b"there at %d" % order
        yield "specimen", names.spool_name(order, now, pid, names.SIDECAR, URI), _sidecar(now, order, body).to_json(), b""
        yield "specimen", names.spool_name(order, now, pid, names.BODY, URI), body, body


def _sidecar(now: int, order: int, body: bytes) -> Sidecar:
    return Sidecar(
        id=f"{order:032x}",
        user=USER,
        uri=URI,
        type=media_type.UNKNOWN_TYPE,
        received=now,
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )


ROWS: tuple[Row, ...] = (
    Row("names-free", GROUP, "keys that were taken are free when a batch is sent again whose answer was lost", _free_again),
    Row("names-removed", GROUP, "a reader removes each batch that it has read, over kills and stops in one hour", _read_away),
    Row("names-taken", GROUP, "files stand in the spool under the names that would be given next", _standing_there),
)
