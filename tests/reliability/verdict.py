"""How a try ends: the gateway is stopped, what it has left and said is looked at, and all that was sent is accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from reliability.row import Outcome
from testkit import stored
from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Gateway
from testkit.ledger import Ledger

STOP_S = 60.0


@contextmanager
def ended(*gateways: Gateway) -> Iterator[None]:
    """Whatever comes of this block, no gateway outlives it."""
    try:
        yield
    finally:
        for gateway in gateways:
            # One that has ended by itself is not there to be killed.
            with suppress(ProcessLookupError):
                gateway.kill()


def serve(gateway: Gateway, buckets: Buckets) -> None:
    """Start a gateway and return once it has found out what it wants to know of the store: from then on it is itself."""
    gateway.start()
    until(lambda: all(_is_proved(buckets, bucket) for bucket in buckets.all), "the gateway to have asked the store")


def _is_proved(buckets: Buckets, bucket: str) -> bool:
    return any(key.rpartition("/")[2] == stored.PROOF for key in buckets.keys(bucket))


def waiting(gateway: Gateway) -> list[str]:
    """What is left in the spool, but for what a failed removal leaves there for the next start: drafts and lone sidecars."""
    left = set(gateway.left())
    return sorted(name for name in left if not name.startswith("tmp/") and not _is_lone_sidecar(name, left))


def _is_lone_sidecar(name: str, left: set[str]) -> bool:
    return name.endswith(".meta") and f"{name.removesuffix('meta')}body" not in left


def delivered(gateway: Gateway, what: str = "all that waits to be delivered") -> None:
    """Return once nothing waits, without any help."""
    try:
        until(lambda: not waiting(gateway), what)
    except AssertionError as error:
        raise AssertionError(f"{error}; left are {waiting(gateway)[:5]}") from None


def told(outcome: Outcome, gateway: Gateway, where: str, statuses: Iterable[int] = (204, 503, 507)) -> None:
    """Blame what the latest run of the gateway has said that it never should, and every other answer than these."""
    for event in ("defect", "quarantined"):
        for line in gateway.events(event)[:1]:
            outcome.blame(f"{where}: {event}: {line}")
    answered = {line["status"] for event in ("request done", "request failed") for line in gateway.events(event)}
    if unknown := answered - {200, *statuses}:
        outcome.blame(f"{where}: answered with {sorted(unknown)}")


def conclude(outcome: Outcome, gateway: Gateway, buckets: Buckets, ledger: Ledger, where: str, *, tries: int = 1) -> None:
    """Have the gateway drain, and account for so many tries; everything that is not as it should be is blamed."""
    _stop(outcome, gateway, where)
    if gateway.left() and not waiting(gateway):
        gateway.start()
        _stop(outcome, gateway, where)
    if left := gateway.left():
        outcome.blame(f"{where}: left in the spool: {left[:5]}")
    for bucket in buckets.all:
        if uploads := buckets.unfinished_uploads(bucket):
            outcome.blame(f"{where}: unfinished uploads: {uploads[:5]}")
    outcome.add(ledger.account(buckets), where)
    outcome.tried += tries - 1


def _stop(outcome: Outcome, gateway: Gateway, where: str) -> None:
    code = gateway.stop(STOP_S)
    if code != 0:
        outcome.blame(f"{where}: exit code {code}")
    told(outcome, gateway, where)
