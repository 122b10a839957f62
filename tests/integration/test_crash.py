from __future__ import annotations

import random
from collections.abc import Callable

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Gateway, MakeGateway, settings_for
from testkit.ledger import Fate, Ledger
from testkit.load import SEGMENT_REPORT_LIMIT, Load

ROUNDS = 6


def after_answers(ledger: Ledger) -> Callable[[], bool]:
    """A moment of a round, somewhere in the receiving."""
    enough = ledger.requests(Fate.ACKNOWLEDGED) + random.randrange(50, 300)
    return lambda: ledger.requests(Fate.ACKNOWLEDGED) >= enough


def after_deliveries(gateway: Gateway) -> Callable[[], bool]:
    """A moment of a round, somewhere in the delivering."""
    enough = random.randrange(1, 30)
    return lambda: (
        len(gateway.events("object delivered", stream="usage")) + len(gateway.events("object delivered", stream="specimen"))
        >= enough
    )


def test_kills_under_load_lose_and_double_nothing(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Killed again and again under load, it delivers what was acknowledged exactly once and the unanswered at most once."""
    ledger = Ledger()
    # Small segments and batches, so that a kill finds every step of the way under way.
    gateway = make_gateway(
        settings_for(
            buckets,
            aggregation={"max_batch_bytes": "64KiB"},
            spool={"segment_report_limit": SEGMENT_REPORT_LIMIT, "segment_max_bytes": "32KiB", "segment_max_age": "50ms"},
        )
    )
    gateway.start()
    # Not so many reports that two cores could only receive them and never deliver any.
    with Load(gateway, ledger, clients=16, breath_s=0.04).running():
        for number in range(ROUNDS):
            until(after_answers(ledger) if number % 2 else after_deliveries(gateway), "the moment of the kill")
            assert gateway.events("defect") == []
            gateway.kill()
            # The next start is killed too, in its recovery or before it.
            gateway.launch()
            until(lambda: gateway.events("gateway starting"), "the next start to begin")
            gateway.kill()
            gateway.start()
    assert ledger.requests(Fate.UNANSWERED) > 0, "no kill came in the middle of a request"
    assert gateway.stop(60) == 0, gateway.said()
    assert gateway.left() == []
    assert gateway.events("quarantined") == []
    ledger.check(buckets)
