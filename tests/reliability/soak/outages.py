"""Outages of the store in a soak: what lies between the gateway and it for a few seconds."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from reliability.proxy.exchange import Request
from reliability.proxy.faults import Fault, answered, at_random, broken, late, spilled, stalled, torn
from reliability.proxy.server import FaultProxy, Rule

REFUSED = "connections refused"
_503 = answered(503, "SlowDown")
# Not their beginning: each attempt leaves an upload that has to be aborted.
_PARTS = ("UploadPart", "CompleteMultipartUpload")


def _any_of(_: Request) -> list[Fault]:
    return [broken(), spilled, stalled(), _503, torn, broken(done=True), answered(503, "SlowDown", done=True)]


FAULTS: Mapping[str, Callable[[random.Random], Rule]] = {
    "503": lambda _: Rule(_503),
    "503 before the body": lambda _: Rule(answered(503, "SlowDown", early=True)),
    "500": lambda _: Rule(answered(500, "InternalError")),
    "403": lambda _: Rule(answered(403, "AccessDenied")),
    "resets": lambda _: Rule(broken()),
    "resets within the body": lambda _: Rule(spilled),
    "stalls": lambda _: Rule(stalled()),
    "uploads in parts fail": lambda _: Rule(_503, _PARTS),
    "lost answers: reset": lambda _: Rule(broken(done=True)),
    "lost answers: torn": lambda _: Rule(torn),
    "lost answers: 503": lambda _: Rule(answered(503, "SlowDown", done=True)),
    "lost answers: silence": lambda _: Rule(stalled(done=True)),
    "done after the failure was logged": lambda _: Rule(late(_503), times=1),
    "any of these, now and then": lambda source: Rule(at_random(source, 0.3, _any_of)),
}
KINDS = (REFUSED, *FAULTS)


class Outages:
    """Makes outages, one at a time.

    Attributes:
        counts: how many of each kind there were.
        seconds: how long they lasted together.
    """

    def __init__(self, proxy: FaultProxy, source: random.Random) -> None:
        self._proxy = proxy
        self._source = source
        self._begun: float | None = None
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0

    @property
    def stands(self) -> bool:
        """Whether there is one."""
        return self._begun is not None

    def begin(self, kind: str) -> None:
        """From now on."""
        self.end()
        self.counts[kind] += 1
        self._begun = time.monotonic()
        if kind == REFUSED:
            self._proxy.refuse()
        else:
            self._proxy.add(FAULTS[kind](self._source))

    def end(self) -> None:
        """The store is there again, and does what was held back."""
        self._proxy.clear()
        self._proxy.accept()
        self._proxy.release()
        if self._begun is not None:
            self.seconds += time.monotonic() - self._begun
            self._begun = None
