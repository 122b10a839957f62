"""Whether each object has the key that the documentation promises for what is in it, and a stranger's are as they were."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise

from reliability.opened import Delivered, reports
from reliability.strangers import SharedBuckets
from testkit import stored
from testkit.buckets import StoredObject
from testkit.ledger import REPORTS

_BATCH = re.compile(r"(\d{4})/(\d\d)/(\d\d)/(\d\d)/(?P<hour>\d{10})\.(?P<host>[^./]+)(?:\.(?P<number>\d+))?\.jsonl\.gz")
_FILE = re.compile(r"(?P<user>[^/]+)/(?P<day>\d{4}/\d\d/\d\d)/(?P<name>.+)\.(?P<order>\d{19})(?:\.(?P<number>\d+))?\.bin")
# As `testkit.load` names what each client sends.
_SENT_FILE = re.compile(rb"specimen (\d+)-(\d+) ")


def batch_key(hour: datetime, host: str, number: int) -> str:
    """The key of a batch of an hour; the first one has no number."""
    middle = "" if number == 1 else f".{number}"
    return f"{hour:%Y/%m/%d/%H/%Y%m%d%H}.{host}{middle}.jsonl.gz"


def faults(buckets: SharedBuckets, host: str) -> Iterator[str]:
    """What is wrong with the keys of what was delivered, for a person."""
    for key in buckets.disturbed():
        yield f"the stranger's {key} was replaced"
    for name in REPORTS:
        bucket = getattr(buckets, name)
        yield from misplaced(reports(buckets, bucket))
        yield from gaps(stored.keys(buckets, bucket), buckets.strangers(bucket), host)
    for found in stored.files(buckets, buckets.specimen):
        if fault := _misplaced_file(found.key, found.metadata["received"]):
            yield fault


def misplaced(delivered: Iterable[Delivered]) -> Iterator[str]:
    """Reports in an object of another hour than that in which they were received, a few of them."""
    for report in delivered:
        key = _BATCH.fullmatch(report.key)
        hour = re.sub(r"\D", "", report.received)[:10]
        if key is None or "".join(key.groups()[:4]) != key["hour"] or key["hour"] != hour:
            yield f"received at {report.received} and in {report.key}: {report.report[:40]!r}"
            return


def _misplaced_file(key: str, received: str) -> str:
    found = _FILE.fullmatch(key)
    return "" if found and found["day"] == received[:10].replace("-", "/") else f"received at {received} and at {key}"


def gaps(delivered: Iterable[str], strangers: Iterable[str], host: str) -> Iterator[str]:
    """Numbers of an hour that were passed over although they were free: there is a plain key, then `.2`, `.3`, and so on."""
    taken: dict[str, set[int]] = defaultdict(set)
    for key in strangers:
        if found := _BATCH.fullmatch(key):
            taken[found["hour"]].add(int(found["number"] or 1))
    numbers: dict[str, set[int]] = defaultdict(set)
    for key in delivered:
        found = _BATCH.fullmatch(key)
        if found is None or found["host"] != host:
            yield f"no key of a batch: {key}"
        else:
            numbers[found["hour"]].add(int(found["number"] or 1))
    for hour, ours in numbers.items():
        if free := set(range(1, max(ours))) - ours - taken[hour]:
            yield f"in {hour} these numbers were passed over: {sorted(free)}"


def nanoseconds(received: str) -> int:
    """An instant in ISO 8601, with nine digits of a second, since the epoch."""
    second, _, fraction = received.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(f"{second}+00:00").timestamp()) * 10**9 + int(fraction)


def order_of(key: str) -> int:
    """The order in the key of a file, which is that of its name in the spool; -1 if there is none."""
    found = _FILE.fullmatch(key)
    return int(found["order"]) if found else -1


def disordered(files: Iterable[StoredObject]) -> Iterator[str]:
    """Files of one client that sends one after the other, of a lower order than the one that it had sent before."""
    orders: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for file in files:
        if sent := _SENT_FILE.match(file.body):
            orders[sent[1]].append((int(sent[2]), order_of(file.key)))
    for client, of_client in orders.items():
        for (number, earlier), (_, later) in pairwise(sorted(of_client)):
            if earlier >= later:
                yield f"client {client.decode()}, after its file {number}: the order {earlier}, then {later}"
                return


def has_number(key: str) -> bool:
    """Whether a file found the key that it would have had taken."""
    found = _FILE.fullmatch(key)
    return bool(found and found["number"])
