"""Rows in which the store, or the way to it, fails; the store is real, and the faults are made by a proxy before it."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from integration import stored
from integration.buckets import Buckets, StoredObject
from integration.deadlines import until
from integration.gateway_process import HOST, STREAMS, settings_for
from integration.ledger import REPORTS, Account, Fate, Ledger
from integration.load import SEGMENT_REPORT_LIMIT, Load, Request, requests_of
from minio.error import S3Error

from gateway import names
from gateway.spool import Sidecar
from reliability.proxy import (
    Fault,
    FaultProxy,
    Rule,
    answered,
    at_random,
    broken,
    forgotten,
    late,
    skewed,
    spilled,
    stalled,
    torn,
    unconditional,
)
from reliability.proxy import Request as S3Request
from reliability.row import Outcome, Row, Site

GROUP = "Store faults"
MIB = 1 << 20
PART = 5 * MIB
# What failing attempts may take above the memory of a gateway that has sent everything, however many there are.
ALLOWANCE = 16 * MIB
SEED = 20_261_121
SETTINGS: dict[str, dict[str, object]] = {
    # Small batches, so that a few reports make several.
    "aggregation": {"max_batch_bytes": "16KiB"},
    "spool": {"segment_report_limit": SEGMENT_REPORT_LIMIT, "segment_max_age": "100ms"},
    "s3": {"part_size": "5MiB"},
    "delivery": {"retry_min": "10ms", "retry_max": "30ms", "refused_retry": "30ms"},
    "shutdown": {"drain_timeout": "2s"},
}
# Long enough for every answer of a store on loopback, short enough to be waited for.
IMPATIENT: dict[str, object] = {"connect_timeout": "2s", "read_timeout": "2s"}
# How long a failure lasts at least before it is told once more, with a count.
MINUTE_S = 60.0


# --- what is sent, and what lies in the way ----------------------------------------------------------------------


class Shelves(Buckets):
    """Three buckets in which also objects of a stranger lie, which are none of those that the gateway has delivered."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.minio.minio)
        self.strangers: dict[tuple[str, str], StoredObject] = {}

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """See `Buckets.keys`; without the stranger's."""
        return [key for key in super().keys(bucket, prefix) if (bucket, key) not in self.strangers]

    def plant(self, bucket: str, key: str) -> None:
        """Put an object of the stranger's under a key, if nothing is there."""
        body = f"the stranger's, under {key}".encode()
        # The client's own call would replace what is there; metadata as the gateway's, of another batch and another file.
        nobody = "0" * 32
        with contextlib.suppress(S3Error):
            self.client._execute(
                "PUT", bucket, key, body, {"If-None-Match": "*", "x-amz-meta-batch": nobody, "x-amz-meta-id": nobody}
            )
            self.strangers[bucket, key] = self.get(bucket, key)

    def disturbed(self) -> list[str]:
        """The keys of those that are not what they were, down to the second of their writing."""
        marks = ("etag", "last-modified", "content-type")
        wrong = []
        for (bucket, key), before in self.strangers.items():
            now = self.get(bucket, key)
            same = now.body == before.body and now.metadata == before.metadata
            if not same or any(now.headers[mark] != before.headers[mark] for mark in marks):
                wrong.append(f"{bucket}/{key}")
        return wrong

    def uploads(self) -> list[str]:
        """The keys of uploads in parts that were begun and neither completed nor aborted."""
        return [key for bucket in self.all for key in self.unfinished_uploads(bucket)]


class WholeLedger(Ledger):
    """A ledger that reads each specimen, since the ETag of one that was sent in parts is no digest of its bytes."""

    def account(self, buckets: Buckets) -> Account:
        """See `Ledger.account`."""
        account = Account()
        for stream in REPORTS:
            lines = buckets.lines(getattr(buckets, stream))
            self._compare(account, stream, [_md5(line) for line in lines])
        self._compare(account, "specimen", [_md5(one.body) for one in stored.files(buckets, buckets.specimen)])
        return account


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def large_specimen(number: int) -> Request:
    """A specimen of two parts, unlike every other."""
    body = b"".join(hashlib.sha256(b"%d %d" % (number, block)).digest() for block in range((PART + 100_000) // 32))
    return Request("specimen", f"/specimen?uri=large-{number}.bin", body, (body,), "application/octet-stream")


# --- the faults --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """One kind of fault.

    Attributes:
        said: what it is, for a person.
        rules: makes its rules anew; without any the proxy refuses connections.
        kinds: as which it may be told in the log.
        stuck: the kind of which every stream has to fail again and again while the fault stands; empty if each attempt after
            the first ones gets through, and all is delivered while it stands.
        once: whether it is to be told exactly once in a run of the gateway: nothing gets through while it stands.
        lasts: how many failures of each stream to wait for.
        missing: whether the buckets are to be made only when it is over.
        s3: settings of that section.
    """

    said: str
    rules: Callable[[], list[Rule]] = list
    kinds: tuple[str, ...] = ("transient",)
    stuck: str = ""
    once: bool = False
    lasts: int = 20
    missing: bool = False
    s3: dict[str, object] = field(default_factory=dict)


def _outage(said: str, fault: Fault | None, kind: str = "transient", *, lasts: int = 20, missing: bool = False) -> Variant:
    """Nothing gets through for a while."""
    rules: Callable[[], list[Rule]] = list if fault is None else lambda: [Rule(fault)]
    s3 = IMPATIENT if lasts < 20 else {}
    return Variant(said, rules, (kind,), stuck=kind, once=True, lasts=lasts, missing=missing, s3=s3)


def _first(said: str, fault: Fault, *operations: str, kinds: tuple[str, ...] = ("transient",), times: int = 1) -> Variant:
    """The first requests of these operations for each key meet it."""
    return Variant(said, lambda: [Rule(fault, operations, times)], kinds, s3=IMPATIENT if "no answer" in said else {})


def _always(said: str, *rules: tuple[Fault, tuple[str, ...], int | None], kinds: tuple[str, ...] = ("transient",)) -> Variant:
    """The store is like that, and the gateway gets along."""
    return Variant(said, lambda: [Rule(fault, operations, times) for fault, operations, times in rules], kinds)


_503, _INTERNAL = answered(503, "SlowDown"), answered(500, "InternalError")
_DENIED, _EXPIRED = answered(403, "AccessDenied"), answered(400, "ExpiredToken")
_LOST = {
    "reset in place of the answer": broken(done=True),
    "reset in the middle of the answer": torn,
    "503 in place of the answer": answered(503, "SlowDown", done=True),
    "no answer": stalled(done=True),
}


def _lost(*operations: str) -> tuple[Variant, ...]:
    # aiohttp itself repeats a PUT once whose connection was used before and is reset; the gateway hears of the second one.
    return tuple(_first(f"done, and {said}", fault, *operations, times=1 + ("reset" in said)) for said, fault in _LOST.items())


def _failing(*operations: str) -> tuple[Variant, ...]:
    """Every kind of failure, of which only those that the store has not carried out are without the word done."""
    return (
        _first("reset", broken(), *operations, times=2),
        _first("reset within the body", spilled, *operations, times=2),
        _first("no answer", stalled(), *operations),
        _first("500", _INTERNAL, *operations),
        _first("503", _503, *operations, times=3),
        _first("503 before the body", answered(503, "SlowDown", early=True), *operations),
        _first("403", _DENIED, *operations, kinds=("refused",)),
        _first("400 ExpiredToken", _EXPIRED, *operations, kinds=("refused",)),
        _first("404 NoSuchUpload", answered(404, "NoSuchUpload"), *operations),
        *_lost(*operations),
        _first("503, done after all", late(_503), *operations),
    )


def _late(*operations: str) -> tuple[Variant, ...]:
    return (
        _first("503, done while the retry runs", late(_503), *operations),
        _first("503, done after the retry", late(_503, after=True), *operations),
        _first("no answer, done while the retry runs", late(stalled()), *operations),
        _first("reset, done after the retry", late(broken(), after=True), *operations),
    )


# --- one try -----------------------------------------------------------------------------------------------------

# In which moment of its life the gateway meets the fault.
HOWS = ("calm", "start", "kill", "stop")


class Try:
    """One gateway that meets one fault, from its first request to the account of all of them."""

    def __init__(self, site: Site, name: str, variant: Variant, how: str, proxy: FaultProxy, shelves: Shelves) -> None:
        self.variant, self.how, self.proxy, self.shelves = variant, how, proxy, shelves
        self.ledger = WholeLedger()
        self.gateway = site.gateway(name, settings_for(shelves, **SETTINGS))
        self.gateway.configure(aws={"endpoint": proxy.endpoint}, s3=variant.s3)
        self.rules = variant.rules()
        self.kills = 0
        self.faults: list[str] = []
        self.note = ""
        self._requests = requests_of(0)
        self._large = itertools.count()

    def go(self) -> None:
        """Meet the fault; what was seen stands in `faults` and `note`."""
        if self.variant.missing:
            for bucket in self.shelves.all:
                self.shelves.client.remove_bucket(bucket)
        else:
            self._plant_ahead()
        if self.how == "start":
            self._begin()
        self.gateway.start()
        if self.how != "start":
            self._send()
            self._wait_for_the_rest()
            self._begin()
        before = self.gateway.forget_peak()
        self._send()
        self._plant_waiting()
        self._wait_for_fault()
        growth = self.gateway.peak_memory() - before
        if self.how in ("kill", "stop"):
            self._check_told(is_over=False)
            self._end_and_start_again()
            self._wait_for_fault()
        self._check_told(is_over=False)
        self._end()
        self._send()
        self._wait_for_the_rest()
        self._check_told(is_over=True)
        if self.how == "calm":
            self.note = f"{growth / MIB:.1f} MiB more than the {before / MIB:.0f} before"
            if growth > ALLOWANCE:
                self.faults.append(f"memory grew while it lasted: {self.note}")
        self.finish()

    def finish(self) -> None:
        """Stop, have the store do what was held back, and look at everything but the account."""
        if (code := self.gateway.stop(60)) != 0 or self.gateway.left():
            self.faults.append(f"exit {code}, left in the spool: {self.gateway.left()[:3]}")
        self.proxy.clear()
        self.proxy.release()
        for event in ("defect", "quarantined", "aggregation failed", "spool failed"):
            self.faults += [f"{event}: {line}" for line in self.gateway.events(event)[:1]]
        self.faults += [f"overwritten: {key}" for key in self.shelves.disturbed()[:3]]
        self.faults += self.proxy.defects
        # What nobody was told of cannot be noted, nor what is heard in the moment of a kill.
        unheard = self.proxy.unheard("CreateMultipartUpload")
        if len(left := self.shelves.uploads()) > unheard + self.kills:
            self.faults.append(f"{len(left)} uploads left, of which {unheard} had to be: {left[:3]}")
        if self.rules and not any(rule.met for rule in self.rules):
            self.faults.append("no request has met the fault")

    def deliver_in_peace(self) -> None:
        """Have what still waits delivered without any fault."""
        self.gateway.kill()
        self.proxy.clear()
        self.proxy.accept()
        self.gateway.start()
        self._wait_for_the_rest()

    # --- its steps ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self.variant.missing:
            return
        if self.rules:
            self.proxy.add(*self.rules)
        else:
            self.proxy.refuse()

    def _end(self) -> None:
        if self.variant.missing:
            for bucket in self.shelves.all:
                self.shelves.client.make_bucket(bucket)
            self._plant_waiting()
        self.proxy.clear()
        self.proxy.accept()

    def _send(self) -> None:
        """Two dozen requests of every kind, and a specimen of two parts."""
        for request in [*itertools.islice(self._requests, 24), large_specimen(next(self._large))]:
            self.send(request)

    def send(self, request: Request) -> None:
        """Send one, and write down what came of it."""
        try:
            status = self.gateway.put(request.path, request.body, headers={"Content-Type": request.content_type})
        except OSError:
            self.ledger.note(request.stream, request.contents, Fate.UNANSWERED)
            return
        self.ledger.note(request.stream, request.contents, Fate.ACKNOWLEDGED if status == 204 else Fate.REFUSED)
        if status != 204:
            self.faults.append(f"a request was answered with {status} because the store failed")

    def _plant_ahead(self) -> None:
        """Take the first and the third key of this hour and of the next."""
        now = datetime.now(UTC)
        hours = {(now + timedelta(minutes=minutes)).strftime("%Y%m%d%H") for minutes in (0, 10)}
        for hour, number, bucket in itertools.product(hours, (1, 3), (self.shelves.usage, self.shelves.error)):
            self.shelves.plant(bucket, names.batch_key("", names.Batch(hour, HOST, "0" * 32), number))

    def _plant_waiting(self) -> None:
        """Take the very key, and the next one, under which each second thing that waits will be sent."""
        for stream in REPORTS:
            for path in sorted(self.gateway.cache.glob(f"{stream}/uploading/*.gz"))[::2]:
                parsed = names.parse_sealed(path.name)
                if parsed is None or not parsed[1]:
                    # A key with the id of the batch is one that no stranger can have.
                    continue
                for number in (parsed[1], parsed[1] + 1):
                    self.shelves.plant(getattr(self.shelves, stream), names.batch_key("", parsed[0], number))
        for path in sorted(self.gateway.cache.glob("specimen/*.meta"))[::2]:
            with contextlib.suppress(FileNotFoundError):
                of = Sidecar.from_json(path.read_bytes())
                key = names.file_key("", user=of.user, uri=of.uri, media_type=of.type, received_ns=of.received, again="")
                self.shelves.plant(self.shelves.specimen, key)

    def _wait_for_fault(self) -> None:
        stuck = self.variant.stuck
        if stuck:
            until(lambda: self.gateway.has_retried(stuck, self.variant.lasts), "the failures", timeout_s=90)
        else:
            self._wait_for_the_rest()

    def _wait_for_the_rest(self) -> None:
        until(lambda: self.gateway.left() == [], "the spool to be empty", timeout_s=120)

    def _end_and_start_again(self) -> None:
        if self.how == "kill":
            self.gateway.kill()
            self.kills += 1
        elif (code := self.gateway.stop(30)) != (3 if self.variant.stuck else 0):
            self.faults.append(f"the stop while the fault stood came with exit {code}")
        self.gateway.start()

    def _check_told(self, *, is_over: bool) -> None:
        for stream in STREAMS:
            told = self.gateway.events(f"{stream} failed")
            begun = [line for line in told if "count" not in line]
            self.faults += [f"told again too soon: {line}" for line in told if line.get("duration_s", MINUTE_S) < MINUTE_S][:1]
            if is_over and begun:
                # It is told a moment after the last file is gone.
                enough = len(begun)
                with contextlib.suppress(AssertionError):
                    until(lambda: len(self.gateway.events(f"{stream} recovered")) >= enough, "the end", timeout_s=5)  # noqa: B023
            ended = self.gateway.events(f"{stream} recovered")
            if self.variant.once and (len(begun), len(ended)) != (1, int(is_over)):
                self.faults.append(f"{stream}: told {len(begun)} times that it failed, {len(ended)} times that it recovered")
            if (is_over and len(begun) != len(ended)) or not all(line["count"] >= 1 for line in ended):
                self.faults.append(f"{stream}: {len(begun)} beginnings and {len(ended)} ends")
            self.faults += [f"told as {line['kind']}: {line}" for line in begun if line["kind"] not in self.variant.kinds][:1]


# --- rows --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _prepared(site: Site, name: str, variant: Variant, how: str) -> Iterator[Try]:
    """A try, which leaves neither a process nor a bucket behind."""
    shelves = Shelves(site)
    with FaultProxy(site.minio.minio) as proxy:
        one = Try(site, name, variant, how, proxy, shelves)
        try:
            yield one
        finally:
            one.gateway.kill()
            for bucket in shelves.all:
                # The stranger's too.
                shelves.strangers.clear()
                with contextlib.suppress(S3Error):
                    shelves.remove_bucket(bucket)
            shelves.close()


def _run(variants: Sequence[Variant], hows: Sequence[str], site: Site) -> Outcome:
    """Each kind of the fault in each moment of the gateway's life."""
    outcome = Outcome()
    met = 0
    for number, (how, variant) in enumerate(site.pick(list(itertools.product(hows, variants)))):
        where = f"{variant.said} ({how})"
        with _prepared(site, f"{number}", variant, how) as one:
            _account(outcome, one, where, one.go)
            met += sum(rule.met for rule in one.rules)
            if one.note:
                outcome.notes.append(f"{where}: {one.note}")
    outcome.notes.append(f"{met} requests have met it")
    return outcome


def _account(outcome: Outcome, one: Try, where: str, go: Callable[[], None]) -> None:
    try:
        go()
    except AssertionError as error:
        outcome.blame(f"{where}: {error}")
        # What only waits is not lost, and is not to be counted so.
        with contextlib.suppress(AssertionError):
            one.deliver_in_peace()
    outcome.add(one.ledger.account(one.shelves), where)
    for fault in one.faults:
        outcome.blame(f"{where}: {fault}")


def _any_of(request: S3Request) -> Sequence[Fault]:
    """What a request may meet in the mix."""
    every = [broken(), spilled, stalled(), _INTERNAL, _503, _DENIED, _EXPIRED, answered(503, "SlowDown", early=True)]
    every += [*_LOST.values(), late(_503), late(broken(), after=True), late(stalled())]
    if request.operation == "PutObject":
        every.append(late(_503, conflicts=2))
    if request.operation == "CompleteMultipartUpload":
        every += [answered(200, "InternalError"), answered(200, "InternalError", done=True)]
    return every


def _mixed(site: Site) -> Outcome:
    """Rounds of load under random faults, each ended by a kill or a stop in the middle of it."""
    outcome = Outcome()
    source = random.Random(SEED)
    mix = Variant("a mix", lambda: [Rule(at_random(source, 0.3, _any_of))], ("transient", "refused"), s3=IMPATIENT)
    with _prepared(site, "mixed", mix, "mixed") as one:
        _account(outcome, one, "the mix", partial(_rounds, one, site.of(20), source))
        told = sum(record.is_unheard for record in one.proxy.records)
        outcome.notes.append(f"seed {SEED}: {one.rules[0].met} requests, of which {told} were done unheard; {one.kills} kills")
    outcome.tried = one.rules[0].met
    return outcome


def _rounds(one: Try, rounds: int, source: random.Random) -> None:
    # The batches of an earlier run look for their numbers one by one, so there should not be hundreds in an hour.
    one.gateway.configure(aggregation={"max_batch_bytes": "128KiB", "usage_interval": "3s", "error_interval": "3s"})
    one._plant_ahead()
    one._begin()
    one.gateway.start()
    before = one.gateway.forget_peak()
    with Load(one.gateway, one.ledger, clients=2, breath_s=0.2).running():
        for number in range(rounds):
            one.send(large_specimen(number))
            one._plant_waiting()
            enough = len(one.proxy.records) + source.randrange(20, 60)
            until(lambda: len(one.proxy.records) >= enough, "requests to the store", timeout_s=60)  # noqa: B023
            if number % 4 == 3:
                one.gateway.stop(30)
            else:
                one.gateway.kill()
                one.kills += 1
            one.gateway.start()
            before = max(before, one.gateway.forget_peak())
    one.proxy.clear()
    one._wait_for_the_rest()
    if (growth := one.gateway.peak_memory() - before) > 2 * ALLOWANCE:
        one.faults.append(f"memory grew by {growth / MIB:.0f} MiB")
    one.finish()


def _told_again(site: Site) -> Outcome:
    """An outage of more than a minute, which is told again once, with a count."""
    outcome = Outcome()
    with _prepared(site, "long", _outage("refused connections", None), "calm") as one:
        _account(outcome, one, "a long outage", partial(_long, one))
    outcome.notes.append(one.note)
    return outcome


def _long(one: Try) -> None:
    one.gateway.start()
    one._send()
    one._wait_for_the_rest()
    one._begin()
    one._send()
    one._wait_for_fault()
    began, before = time.monotonic(), one.gateway.forget_peak()
    until(lambda: all(len(one.gateway.events(f"{stream} failed")) == 2 for stream in STREAMS), "the count", timeout_s=75)
    failures = min(one.gateway.events(f"{stream} failed")[1]["count"] for stream in STREAMS)
    growth, lasted = one.gateway.peak_memory() - before, time.monotonic() - began
    one.note = f"{failures} failures of each stream in {lasted:.0f} s took {growth / MIB:.1f} MiB above {before / MIB:.0f}"
    if failures < 100 or growth > ALLOWANCE // 4:
        one.faults.append(one.note)
    one._end()
    one._wait_for_the_rest()
    one._check_told(is_over=True)
    one.finish()


def _forgetting(said: str, lost: Fault) -> Variant:
    rules = (lost, ("PutObject",), 2, 12), (forgotten, ("HeadObject",), None, None)
    return Variant(said, lambda: [Rule(fault, of, times, most=most) for fault, of, times, most in rules])


def _row(name: str, fault: str, *variants: Variant, hows: Sequence[str] = HOWS) -> Row:
    return Row(f"store-{name}", GROUP, fault, partial(_run, variants, hows))


_PUTS = ("PutObject", "CompleteMultipartUpload")
_BUSY = late(_503, conflicts=3)
_LOST_UNCONDITIONAL = unconditional(lost=True)

ROWS: tuple[Row, ...] = (
    _row("refuses-connections", "connections refused for a while", _outage("refused connections", None)),
    Row("store-long-outage", GROUP, "connections refused for more than a minute", _told_again),
    _row("stalls", "no answer until the read timeout", _outage("no answer", stalled(), lasts=2)),
    _row(
        "resets", "connections reset, before and in the middle of the body", _outage("reset", broken()), _outage("mid", spilled)
    ),
    _row("500", "500 InternalError for a while", _outage("500", _INTERNAL)),
    _row(
        "slow-down",
        "503 SlowDown for a while, after the body and before it",
        _outage("503", _503),
        _outage("503 before the body", answered(503, "SlowDown", early=True)),
    ),
    _row("forbidden", "403 AccessDenied for a while", _outage("403", _DENIED, "refused")),
    _row("no-bucket", "buckets that are made later", _outage("no bucket", None, "refused", missing=True), hows=("start",)),
    _row("expired-token", "400 ExpiredToken for a while", _outage("expired", _EXPIRED, "refused")),
    _row(
        "skewed-clock",
        "a clock that is wrong by twenty minutes for a while",
        _outage("late clock", skewed(timedelta(minutes=-20)), "refused"),
        _outage("early clock", skewed(timedelta(minutes=20)), "refused"),
    ),
    _row("lost-answer", "puts that succeed and whose answer is lost", *_lost("PutObject"), hows=("calm", "kill")),
    _row("busy-key", "409 while an earlier put still runs", _first("409", _BUSY, "PutObject"), hows=("calm", "start", "kill")),
    _row("late-put", "puts that succeed after their retry has begun", *_late("PutObject"), hows=("calm", "kill")),
    _row("create", "CreateMultipartUpload fails, or its answer is lost", *_failing("CreateMultipartUpload"), hows=("calm",)),
    _row("part", "a part fails in every way", *_failing("UploadPart"), hows=("calm",)),
    _row(
        "complete",
        "CompleteMultipartUpload fails, its answer is lost, or it comes late",
        *_failing("CompleteMultipartUpload"),
        *_late("CompleteMultipartUpload"),
        hows=("calm",),
    ),
    _row(
        "complete-200",
        "CompleteMultipartUpload answers 200 with an error in it",
        _first("not done", answered(200, "InternalError"), "CompleteMultipartUpload"),
        _first("done", answered(200, "InternalError", done=True), "CompleteMultipartUpload"),
        hows=("calm", "kill"),
    ),
    _row(
        "abort",
        "an upload that fails and cannot be aborted",
        _always("403", (_503, ("UploadPart",), 1), (_DENIED, ("AbortMultipartUpload",), 2)),
        _always("lost", (_503, ("UploadPart",), 1), (broken(done=True), ("AbortMultipartUpload",), 2)),
        _always("complete while aborting", (late(_503), ("CompleteMultipartUpload",), 1)),
        hows=("calm", "kill"),
    ),
    _row(
        "head-forbidden",
        "HEAD forbidden for a while, and answers of puts lost",
        Variant(
            "403",
            lambda: [Rule(_DENIED, ("HeadObject",)), Rule(broken(done=True), _PUTS, 2)],
            ("transient", "refused"),
            stuck="refused",
        ),
        hows=("calm", "kill", "stop"),
    ),
    _row(
        "replaces",
        "a store that ignores If-None-Match",
        _always("plain", (unconditional(), _PUTS, None)),
        _always("lost", (_LOST_UNCONDITIONAL, _PUTS, 1), (unconditional(), _PUTS, None)),
        hows=("start",),
    ),
    _row(
        "forgets",
        "a store that gives no metadata back",
        _always("plain", (forgotten, ("HeadObject",), None)),
        hows=("start", "calm"),
    ),
    _row(
        "forgets-lost",
        "a store that gives no metadata back, and answers of puts are lost",
        *(_forgetting(said, fault) for said, fault in _LOST.items() if said != "no answer"),
        # One that does so only after it was proved would have to change its ways, which no proof foresees.
        hows=("start",),
    ),
    Row("store-mixed", GROUP, "each request meets a random fault with probability 0.3, with kills in between", _mixed),
)
