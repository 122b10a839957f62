"""Accounts for what was sent, by content: what each client was told against what the store holds."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from enum import Enum

from integration import stored
from integration.buckets import Buckets

REPORTS = ("usage", "error")
FILES = ("specimen",)


class Fate(Enum):
    """What the client was told of what it sent."""

    ACKNOWLEDGED = "acknowledged"
    """204: must be there exactly once."""
    REFUSED = "refused"
    """An error: must not be there."""
    UNANSWERED = "unanswered"
    """The connection broke before an answer: may be there, but only once."""


class Ledger:
    """What was sent in one test. Every line and every file has to be unlike every other; may be used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fates: dict[str, dict[str, Fate]] = defaultdict(dict)
        self._texts: dict[str, str] = {}
        self._counts: Counter[Fate] = Counter()
        self.statuses: Counter[int] = Counter()

    def note(self, stream: str, contents: Iterable[bytes], fate: Fate) -> None:
        """Write down lines, or one file, of one request."""
        digests = {_digest(content): content for content in contents}
        with self._lock:
            for digest, content in digests.items():
                assert digest not in self._fates[stream], f"sent twice: {content[:60]!r}"
                self._fates[stream][digest] = fate
                self._texts[digest] = repr(content[:60])
            self._counts[fate] += 1

    def requests(self, fate: Fate) -> int:
        """How many requests came to this end so far."""
        with self._lock:
            return self._counts[fate]

    def check(self, buckets: Buckets) -> None:
        """Compare with what the buckets hold; what went wrong is told with an example of each kind."""
        for stream in REPORTS:
            self._compare(stream, [_digest(line) for line in buckets.lines(getattr(buckets, stream))])
        for stream in FILES:
            self._compare(stream, stored.etags(buckets, getattr(buckets, stream)))

    def _compare(self, stream: str, held: list[str]) -> None:
        fates = self._fates[stream]
        found = Counter(held)
        wrong = {
            "lost": [one for one, fate in fates.items() if fate is Fate.ACKNOWLEDGED and not found[one]],
            "doubled": [one for one, count in found.items() if count > 1],
            "there though refused": [one for one, fate in fates.items() if fate is Fate.REFUSED and found[one]],
            "never sent": [one for one in found if one not in fates],
        }
        faults = [
            f"{len(digests)} {what}, {self._texts.get(digests[0], digests[0])} for one"
            for what, digests in wrong.items()
            if digests
        ]
        assert not faults, f"{stream}: of {len(fates)} sent and {len(held)} held: {'; '.join(faults)}"


def _digest(content: bytes) -> str:
    # As in the ETag of an object.
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
