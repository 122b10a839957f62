"""Rows in which the store, or the way to it, fails; the store is real, and the faults are made by a proxy before it."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

from minio.error import S3Error

from gateway.delivery.lane import ALIKE_REFUSALS
from reliability.proxy.exchange import Request as S3Request
from reliability.proxy.faults import (
    Fault,
    answered,
    at_random,
    broken,
    deaf,
    forgotten,
    late,
    pretended,
    silent,
    skewed,
    spilled,
    stalled,
    unconditional,
)
from reliability.proxy.server import FaultProxy, Rule
from reliability.row import Outcome, Row, Site
from reliability.store.attempt import ALLOWANCE, HOWS, MIB, Try, check_refusing, large_specimen
from reliability.store.variants import (
    BUSY,
    DENIED,
    EXPIRED,
    IMPATIENT,
    INTERNAL,
    LOST,
    Variant,
    always,
    comes_late,
    failing,
    first_ones,
    lost_answers,
    outage,
)
from reliability.strangers import SharedBuckets
from testkit.deadlines import until
from testkit.gateway_process import STREAMS
from testkit.load import Load

GROUP = "Store faults"
SEED = 20_261_121
# In which the requests are counted that a store gets while it refuses everything.
WINDOW_S = 6.0


@contextlib.contextmanager
def _prepared(site: Site, name: str, variant: Variant, how: str) -> Iterator[Try]:
    """A try, which leaves neither a process nor a bucket behind."""
    buckets = SharedBuckets(site.minio.minio)
    with FaultProxy(site.minio.minio) as proxy:
        one = Try(site, name, variant, how, proxy, buckets)
        try:
            yield one
        finally:
            one.gateway.kill()
            # The stranger's too.
            buckets.forget()
            for bucket in buckets.all:
                with contextlib.suppress(S3Error):
                    buckets.remove_bucket(bucket)
            buckets.close()


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
    outcome.add(one.ledger.account(one.buckets), where)
    for fault in one.faults:
        outcome.blame(f"{where}: {fault}")


def _any_of(request: S3Request) -> Sequence[Fault]:
    """What a request may meet in the mix."""
    every = [broken(), spilled, stalled(), INTERNAL, BUSY, DENIED, EXPIRED, answered(503, "SlowDown", early=True)]
    every += [*LOST.values(), late(BUSY), late(broken(), after=True), late(stalled())]
    if request.operation == "PutObject":
        every.append(late(BUSY, conflicts=2))
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
    one.plant_ahead()
    one.begin()
    one.gateway.start()
    before = one.gateway.forget_peak()
    with Load(one.gateway, one.ledger, clients=2, breath_s=0.2).running():
        for number in range(rounds):
            one.send(large_specimen(number))
            one.plant_waiting()
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
    one.wait_for_the_rest()
    if (growth := one.gateway.peak_memory() - before) > 2 * ALLOWANCE:
        one.faults.append(f"memory grew by {growth / MIB:.0f} MiB")
    one.finish()


def _told_again(site: Site) -> Outcome:
    """An outage of more than a minute, which is told again once, with a count."""
    outcome = Outcome()
    with _prepared(site, "long", outage("refused connections", None), "calm") as one:
        _account(outcome, one, "a long outage", partial(_long, one))
    outcome.notes.append(one.note)
    return outcome


def _long(one: Try) -> None:
    one.gateway.start()
    one.send_some()
    one.wait_for_the_rest()
    one.begin()
    one.send_some()
    one.wait_for_fault()
    began, before = time.monotonic(), one.gateway.forget_peak()
    until(
        lambda: all(len(one.gateway.events("delivery failed", stream=stream)) == 2 for stream in STREAMS),
        "the count",
        timeout_s=75,
    )
    failures = min(one.gateway.events("delivery failed", stream=stream)[1]["count"] for stream in STREAMS)
    growth, lasted = one.gateway.peak_memory() - before, time.monotonic() - began
    one.note = f"{failures} failures of each stream in {lasted:.0f} s took {growth / MIB:.1f} MiB above {before / MIB:.0f}"
    if failures < 100 or growth > ALLOWANCE // 4:
        one.faults.append(one.note)
    one.end()
    one.wait_for_the_rest()
    one.check_told(is_over=True)
    one.finish()


SSE_SETTINGS: tuple[dict[str, object], ...] = (
    {"server_side_encryption": "AES256"},
    {"server_side_encryption": "aws:kms", "kms_key_id": "no-such-key"},
)


def _no_kms(site: Site) -> Outcome:
    """A setting asks for what the store cannot do: nothing is taken until it is out of the configuration again."""
    outcome = Outcome()
    for number, setting in enumerate(site.pick(list(SSE_SETTINGS))):
        where = str(setting["server_side_encryption"])
        variant = Variant(where, kinds=("refused",), stuck="refused", once=True, s3=setting)
        with _prepared(site, f"{number}", variant, "start") as one:
            _account(outcome, one, where, partial(_set_wrongly, one))
            outcome.notes.append(f"{where}: {one.note}")
    return outcome


def _set_wrongly(one: Try) -> None:
    one.gateway.start()
    one.send_some()
    one.wait_for_fault()
    one.check_told(is_over=False)
    check_refusing(one, is_over=False)
    # Once a minute.
    until(
        lambda: all(len(one.gateway.events("delivery failed", stream=stream)) == 2 for stream in STREAMS),
        "the count",
        timeout_s=75,
    )
    one.check_told(is_over=False)
    one.note = str(one.gateway.events("delivery failed", stream="usage")[1]["reason"])[:120]
    if (code := one.gateway.stop(30)) != 3:
        one.faults.append(f"the stop came with exit {code}, and not with that of data that is left")
    one.gateway.configure(s3=dict.fromkeys(one.variant.s3))
    one.gateway.start()
    one.send_some()
    one.wait_for_the_rest()
    check_refusing(one, is_over=True)
    one.finish()


def _refuses_objects(site: Site) -> Outcome:
    """Each put is refused as if it were for something in the object: so are different ones, and then it is the stream's."""
    outcome = Outcome()
    fault = answered(400, "InvalidArgument")
    variant = Variant("400", lambda: [Rule(fault, ("PutObject", "CreateMultipartUpload"))], ("object", "refused"), once=True)
    with _prepared(site, "objects", variant, "objects") as one:
        _account(outcome, one, "400 InvalidArgument", partial(_refused_alike, one))
        outcome.notes.append(one.note)
    return outcome


def _refused_alike(one: Try) -> None:
    # So rarely that what is tried again shows in the number of requests.
    one.gateway.configure(delivery={"refused_retry": "2s", "retry_max": "2s"})
    one.gateway.start()
    one.send_some()
    one.wait_for_the_rest()
    one.begin()

    def is_refused() -> bool:
        # Of error reports there is one batch a second.
        one.send_some()
        return one.gateway.has_retried("refused", 3)

    until(is_refused, "each stream to be refused")
    for stream in STREAMS:
        one.faults += _not_alike(stream, one.gateway.events("delivery failed", stream=stream))
    check_refusing(one, is_over=False)
    waiting, before, begun = len(one.gateway.left()), len(one.proxy.records), time.monotonic()
    until(lambda: time.monotonic() > begun + WINDOW_S, "some seconds to be over")
    tried = len(one.proxy.records) - before
    one.note = f"{tried} requests in {WINDOW_S:g} s, while {waiting} files waited"
    # At least half of the longest pause lies between two of a stream.
    if tried > len(STREAMS) * (WINDOW_S + 1):
        one.faults.append(one.note)
    one.end()
    one.wait_for_the_rest()
    one.check_told(is_over=True)
    check_refusing(one, is_over=True)
    one.finish()


def _not_alike(stream: str, told: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What is wrong with the lines: two things are refused by themselves, some of them again, and then the stream is."""
    kinds = [line["kind"] for line in told]
    first = kinds.index("refused") if "refused" in kinds else len(kinds)
    by_themselves = {line["file"] for line in told[:first]}
    if len(by_themselves) != ALIKE_REFUSALS - 1 or kinds[first:] != ["refused"]:
        yield f"{stream}: told as {kinds}, of {len(by_themselves)} different ones"


def _forgetting(said: str, lost: Fault) -> Variant:
    rules = (lost, ("PutObject",), 2, 12), (forgotten, ("HeadObject",), None, None)
    return Variant(said, lambda: [Rule(fault, of, times, most=most) for fault, of, times, most in rules])


def _row(name: str, fault: str, *variants: Variant, hows: Sequence[str] = HOWS) -> Row:
    return Row(f"store-{name}", GROUP, fault, partial(_run, variants, hows))


_PUTS = ("PutObject", "CompleteMultipartUpload")
_PARTS = ("CreateMultipartUpload", "UploadPart")
_WITH_ETAG = pretended('ETag: "5f3e-60a1"')
_BUSY_KEY = late(BUSY, conflicts=3)
_CONFLICT, _NO_UPLOAD = answered(409, "ConditionalRequestConflict"), answered(404, "NoSuchUpload")
_REFUSED_TOO = ("transient", "refused")
_LOST_UNCONDITIONAL = unconditional(lost=True)

ROWS: tuple[Row, ...] = (
    _row("refuses-connections", "connections refused for a while", outage("refused connections", None)),
    Row("store-long-outage", GROUP, "connections refused for more than a minute", _told_again),
    _row("stalls", "no answer until the read timeout", outage("no answer", stalled(), lasts=2)),
    _row(
        "silent",
        "no word at all, not even to send the body; a body of which it takes no more",
        outage("silent", silent, lasts=2),
        first_ones("deaf, no answer", deaf, "PutObject", "UploadPart"),
    ),
    _row("resets", "connections reset, before and in the middle of the body", outage("reset", broken()), outage("mid", spilled)),
    _row("500", "500 InternalError for a while", outage("500", INTERNAL)),
    _row(
        "slow-down",
        "503 SlowDown for a while, after the body and before it",
        outage("503", BUSY),
        outage("503 before the body", answered(503, "SlowDown", early=True)),
    ),
    _row("forbidden", "403 AccessDenied for a while", outage("403", DENIED, "refused")),
    _row("no-bucket", "buckets that are made later", outage("no bucket", None, "refused", missing=True), hows=("start",)),
    Row("store-no-kms", GROUP, "encryption is asked for that the store does not have, until the setting is taken out", _no_kms),
    Row("store-refuses-objects", GROUP, "400 InvalidArgument to every put for a while", _refuses_objects),
    _row("expired-token", "400 ExpiredToken for a while", outage("expired", EXPIRED, "refused")),
    _row(
        "skewed-clock",
        "a clock that is wrong by twenty minutes for a while",
        outage("late clock", skewed(timedelta(minutes=-20)), "refused"),
        outage("early clock", skewed(timedelta(minutes=20)), "refused"),
    ),
    _row("lost-answer", "puts that succeed and whose answer is lost", *lost_answers("PutObject"), hows=("calm", "kill")),
    _row(
        "busy-key",
        "409 while an earlier put still runs",
        first_ones("409", _BUSY_KEY, "PutObject"),
        hows=("calm", "start", "kill"),
    ),
    _row("late-put", "puts that succeed after their retry has begun", *comes_late("PutObject"), hows=("calm", "kill")),
    _row("create", "CreateMultipartUpload fails, or its answer is lost", *failing("CreateMultipartUpload"), hows=("calm",)),
    _row("part", "a part fails in every way", *failing("UploadPart"), hows=("calm",)),
    _row(
        "complete",
        "CompleteMultipartUpload fails, its answer is lost, or it comes late",
        *failing("CompleteMultipartUpload"),
        *comes_late("CompleteMultipartUpload"),
        hows=("calm",),
    ),
    _row(
        "complete-200",
        "CompleteMultipartUpload answers 200 with an error in it",
        first_ones("not done", answered(200, "InternalError"), "CompleteMultipartUpload"),
        first_ones("done", answered(200, "InternalError", done=True), "CompleteMultipartUpload"),
        hows=("calm", "kill"),
    ),
    _row(
        "abort",
        "an upload that fails and cannot be aborted",
        always("403", (DENIED, ("UploadPart",), 1), (DENIED, ("AbortMultipartUpload",), 2), kinds=("refused",)),
        always("lost", (DENIED, ("UploadPart",), 1), (broken(done=True), ("AbortMultipartUpload",), 2), kinds=_REFUSED_TOO),
        always("complete while aborting", (late(_CONFLICT), ("CompleteMultipartUpload",), 1)),
        hows=("calm", "kill"),
    ),
    _row(
        "list",
        "a part or the last call fails, and then the list of what has arrived",
        *(
            always(f"{said} after {operation}", (BUSY, (operation,), 1), (fault, ("ListParts",), 2), kinds=_REFUSED_TOO)
            for operation in ("UploadPart", "CompleteMultipartUpload")
            for said, fault in (("403", DENIED), ("reset", broken()), ("503", BUSY), ("404", _NO_UPLOAD), ("200", pretended()))
        ),
        hows=("calm", "kill"),
    ),
    _row(
        "head-forbidden",
        "HEAD forbidden for a while, and answers of puts lost",
        Variant(
            "403",
            lambda: [Rule(DENIED, ("HeadObject",)), Rule(broken(done=True), _PUTS, 2)],
            ("transient", "refused"),
            stuck="refused",
        ),
        hows=("calm", "kill", "stop"),
    ),
    _row(
        "replaces",
        "a store that ignores If-None-Match",
        always("plain", (unconditional(), _PUTS, None)),
        always("lost", (_LOST_UNCONDITIONAL, _PUTS, 1), (unconditional(), _PUTS, None)),
        hows=("start",),
    ),
    _row(
        "forgets",
        "a store that gives no metadata back",
        always("plain", (forgotten, ("HeadObject",), None)),
        hows=("start", "calm"),
    ),
    _row(
        "forgets-lost",
        "a store that gives no metadata back, and answers of puts are lost",
        *(_forgetting(said, fault) for said, fault in LOST.items() if said != "no answer"),
        # One that does so only after it was proved would have to change its ways, which no proof foresees.
        hows=("start",),
    ),
    _row(
        "says-yes",
        "200 to a request that is not carried out: to everything, and to each operation",
        outage("200 to everything", pretended()),
        outage("200 with an ETag to everything", pretended('ETag: "5f3e-60a1"')),
        *(first_ones(f"200 to {operation}", pretended(), operation, times=2) for operation in (*_PUTS, *_PARTS)),
        # A part that was not kept is missed by Complete.
        *(
            first_ones(f"200 with an ETag to {operation}", _WITH_ETAG, operation, kinds=("transient", "object"), times=2)
            for operation in (*_PUTS, *_PARTS)
        ),
        always("to a look", (broken(done=True), _PUTS, 2), (pretended(), ("HeadObject",), 2)),
        always("to an abort", (DENIED, ("UploadPart",), 1), (pretended(), ("AbortMultipartUpload",), 1), kinds=_REFUSED_TOO),
        hows=("calm", "kill"),
    ),
    Row("store-mixed", GROUP, "each request meets a random fault with probability 0.3, with kills in between", _mixed),
)
