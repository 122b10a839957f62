"""Accounts for what was sent, by content: what each client was told against what the store holds."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from testkit import stored
from testkit.buckets import Buckets

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


@dataclass
class Account:
    """What became of everything that was sent, in lines and files.

    Attributes:
        acknowledged: answered with 204.
        delivered: of these, there at least once.
        lost: of these, not there.
        doubled: there more than once, whatever was answered.
        there_though_refused: answered with an error, and there.
        never_sent: there, and unlike anything that was sent.
        examples: one of each kind of fault, for a person.
    """

    acknowledged: int = 0
    delivered: int = 0
    lost: int = 0
    doubled: int = 0
    there_though_refused: int = 0
    never_sent: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether nothing is lost, doubled or there without having been taken."""
        return not (self.lost or self.doubled or self.there_though_refused or self.never_sent)


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
        digests = {digest(content): content for content in contents}
        with self._lock:
            for one, content in digests.items():
                assert one not in self._fates[stream], f"sent twice: {content[:60]!r}"
                self._fates[stream][one] = fate
                self._texts[one] = repr(content[:60])
            self._counts[fate] += 1

    def requests(self, fate: Fate) -> int:
        """How many requests came to this end so far."""
        with self._lock:
            return self._counts[fate]

    def check(self, buckets: Buckets) -> None:
        """Compare with what the buckets hold; what went wrong is told with an example of each kind."""
        account = self.account(buckets)
        assert account.is_right, "; ".join(account.examples)

    def account(self, buckets: Buckets) -> Account:
        """Compare with what the buckets hold, and count."""
        account = Account()
        for stream in (*REPORTS, *FILES):
            self._compare(account, stream, self._held(buckets, stream))
        return account

    def _held(self, buckets: Buckets, stream: str) -> list[str]:
        """The digest of every line, or file, that the bucket of a stream holds."""
        bucket = getattr(buckets, stream)
        return stored.etags(buckets, bucket) if stream in FILES else [digest(line) for line in buckets.lines(bucket)]

    def _compare(self, account: Account, stream: str, held: list[str]) -> None:
        with self._lock:
            fates = dict(self._fates[stream])
        found = Counter(held)
        acknowledged = [one for one, fate in fates.items() if fate is Fate.ACKNOWLEDGED]
        faults = {
            "lost": [one for one in acknowledged if not found[one]],
            "doubled": [one for one, count in found.items() if count > 1],
            "there_though_refused": [one for one, fate in fates.items() if fate is Fate.REFUSED and found[one]],
            "never_sent": [one for one in found if one not in fates],
        }
        account.acknowledged += len(acknowledged)
        account.delivered += len(acknowledged) - len(faults["lost"])
        for what, digests in faults.items():
            setattr(account, what, getattr(account, what) + len(digests))
            if digests:
                example = self._texts.get(digests[0], digests[0])
                account.examples.append(
                    f"{stream}: {len(digests)} {what.replace('_', ' ')} of {len(fates)} sent, {example} for one"
                )


class WholeLedger(Ledger):
    """A ledger that reads every file, since the ETag of one that was sent in parts is no digest of its bytes."""

    def _held(self, buckets: Buckets, stream: str) -> list[str]:
        if stream in FILES:
            return [digest(found.body) for found in stored.files(buckets, getattr(buckets, stream))]
        return super()._held(buckets, stream)


def digest(content: bytes) -> str:
    """By which a line or a file is known: as in the ETag of an object."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
