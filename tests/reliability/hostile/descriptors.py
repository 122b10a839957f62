"""The row of descriptors: more connections than files may be open, and reports and specimens get in all the same."""

from __future__ import annotations

from contextlib import ExitStack

from reliability.hostile.bench import attacked
from reliability.hostile.clients import Wild
from reliability.row import Outcome, Site

OPEN_FILES = 64
IDLE = 104
WAVES = 10


def descriptors(site: Site) -> Outcome:
    """Waves of connections that stay idle, far more of them than the gateway may have files open."""
    outcome = Outcome()
    with attacked(site, outcome, "descriptors", open_files=OPEN_FILES) as bench:
        for wave in range(site.of(WAVES)):
            with ExitStack() as stack:
                for _ in range(IDLE):
                    stack.enter_context(Wild(bench.gateway.port))
                bench.tries += IDLE
                bench.ordinary(f"during-{wave}")
                if (count := bench.descriptors()) > OPEN_FILES:
                    bench.blame(f"{count} descriptors are open, and {OPEN_FILES} may be")
        if not bench.gateway.events("connections wait"):
            bench.blame("nobody had to wait for a connection: the limit was not reached")
        for event in ("spool failed", "aggregation failed", "delivery failed"):
            for line in bench.gateway.events(event)[:1]:
                bench.blame(f"{event}: {line}")
    return outcome
