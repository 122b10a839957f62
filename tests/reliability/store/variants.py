"""Kinds of faults of a store, each with what it has to look like to an operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reliability.proxy.faults import (
    Fault,
    answered,
    broken,
    late,
    spilled,
    stalled,
    torn,
)
from reliability.proxy.server import Rule

# Long enough for every answer of a store on loopback, short enough to be waited for.
IMPATIENT: dict[str, object] = {"connect_timeout": "2s", "read_timeout": "2s"}


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


def outage(said: str, fault: Fault | None, kind: str = "transient", *, lasts: int = 20, missing: bool = False) -> Variant:
    """Nothing gets through for a while."""
    rules: Callable[[], list[Rule]] = list if fault is None else lambda: [Rule(fault)]
    s3 = IMPATIENT if lasts < 20 else {}
    return Variant(said, rules, (kind,), stuck=kind, once=True, lasts=lasts, missing=missing, s3=s3)


def first_ones(said: str, fault: Fault, *operations: str, kinds: tuple[str, ...] = ("transient",), times: int = 1) -> Variant:
    """The first requests of these operations for each key meet it."""
    return Variant(said, lambda: [Rule(fault, operations, times)], kinds, s3=IMPATIENT if "no answer" in said else {})


def always(said: str, *rules: tuple[Fault, tuple[str, ...], int | None], kinds: tuple[str, ...] = ("transient",)) -> Variant:
    """The store is like that, and the gateway gets along."""
    return Variant(said, lambda: [Rule(fault, operations, times) for fault, operations, times in rules], kinds)


BUSY, INTERNAL = answered(503, "SlowDown"), answered(500, "InternalError")
DENIED, EXPIRED = answered(403, "AccessDenied"), answered(400, "ExpiredToken")
LOST = {
    "reset in place of the answer": broken(done=True),
    "reset in the middle of the answer": torn,
    "503 in place of the answer": answered(503, "SlowDown", done=True),
    "no answer": stalled(done=True),
}


def lost_answers(*operations: str) -> tuple[Variant, ...]:
    """Done, and the client does not hear of it."""
    # aiohttp itself repeats a PUT once whose connection was used before and is reset; the gateway hears of the second one.
    return tuple(first_ones(f"done, and {said}", fault, *operations, times=1 + ("reset" in said)) for said, fault in LOST.items())


def failing(*operations: str) -> tuple[Variant, ...]:
    """Every kind of failure, of which only those that the store has not carried out are without the word done."""
    return (
        first_ones("reset", broken(), *operations, times=2),
        first_ones("reset within the body", spilled, *operations, times=2),
        first_ones("no answer", stalled(), *operations),
        first_ones("500", INTERNAL, *operations),
        first_ones("503", BUSY, *operations, times=3),
        first_ones("503 before the body", answered(503, "SlowDown", early=True), *operations),
        first_ones("403", DENIED, *operations, kinds=("refused",)),
        first_ones("400 ExpiredToken", EXPIRED, *operations, kinds=("refused",)),
        first_ones("404 NoSuchUpload", answered(404, "NoSuchUpload"), *operations),
        *lost_answers(*operations),
        first_ones("503, done after all", late(BUSY), *operations),
    )


def comes_late(*operations: str) -> tuple[Variant, ...]:
    """Done when its retry has begun."""
    return (
        first_ones("503, done while the retry runs", late(BUSY), *operations),
        first_ones("503, done after the retry", late(BUSY, after=True), *operations),
        first_ones("no answer, done while the retry runs", late(stalled()), *operations),
        first_ones("reset, done after the retry", late(broken(), after=True), *operations),
    )
