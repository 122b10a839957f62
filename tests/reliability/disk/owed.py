"""Who must be told that what was sent is not kept, because a call has failed on which the answer stood."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterable

from reliability.calls import Step
from reliability.disk.strace import Traced
from reliability.scenario import FullLedger
from testkit.ledger import Fate

# Somebody's; the name of a draft does not say whose.
SOMEBODY = "somebody"
_STREAM = r"(?P<stream>usage|error|specimen)"
# A removal is none of them: what cannot be removed is kept for longer, and no answer stands on that.
_ANSWERED_BY = tuple(
    re.compile(pattern)
    for pattern in (
        r"(create|write|fdatasync) tmp/(draft|sidecar)",
        rf"rename tmp/\w+ -> {_STREAM}/….(json|meta|body)",
        rf"fsync {_STREAM} \(commit\)",
    )
)
_SEGMENT = ".jsonl.open"


def owed(steps: Iterable[tuple[Traced, Step]]) -> set[str]:
    """The streams of which a request must have got an error, or no answer; `SOMEBODY` where it is not known which.

    What was to go into a segment is left out: the gateway tries that once more before it tells of an error.
    """
    steps = list(steps)
    writers = {call.thread for call, step in steps if _SEGMENT in step.text}
    return {whose for call, step in steps if call.error and call.thread not in writers and (whose := _whose(step.text))}


def _whose(text: str) -> str:
    for pattern in _ANSWERED_BY:
        if found := pattern.fullmatch(text):
            return found.groupdict().get("stream") or SOMEBODY
    return ""


class ToldLedger(FullLedger):
    """A ledger that also knows of which streams requests were not acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self._refusals: Counter[str] = Counter()
        self._refusing = threading.Lock()

    def note(self, stream: str, contents: Iterable[bytes], fate: Fate) -> None:
        """See `Ledger.note`."""
        super().note(stream, contents, fate)
        if fate is not Fate.ACKNOWLEDGED:
            with self._refusing:
                self._refusals[stream] += 1

    def refusals(self) -> Counter[str]:
        """How many requests of each stream got an error, or no answer, so far."""
        with self._refusing:
            return self._refusals.copy()

    def untold(self, streams: Iterable[str], before: Counter[str]) -> list[str]:
        """Of these streams those of which every request since then was acknowledged."""
        told = self.refusals() - before
        return sorted(one for one in streams if not (told if one == SOMEBODY else told[one]))
