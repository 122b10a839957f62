"""A ledger of half an hour, which keeps a hash and an instant of each line and file, and nothing else."""

from __future__ import annotations

import hashlib
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from testkit import stored
from testkit.buckets import Buckets
from testkit.ledger import FILES, REPORTS, Account, Fate, Ledger

_HASH_BYTES = 16
_READERS = 4


class _Kept:
    """The hashes of what came to one fate, and when it did."""

    def __init__(self) -> None:
        self._hashes = bytearray()
        self._instants = array("f")

    def add(self, digest: bytes, instant: float) -> None:
        self._hashes += digest
        self._instants.append(instant)

    def __iter__(self) -> Iterator[tuple[bytes, float]]:
        for number, instant in enumerate(self._instants):
            yield bytes(self._hashes[number * _HASH_BYTES : (number + 1) * _HASH_BYTES]), instant


class HashLedger(Ledger):
    """A ledger of some 20 bytes a line; what is sent has to be unlike everything else, which is not checked here."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: defaultdict[tuple[str, Fate], _Kept] = defaultdict(_Kept)
        self._begun = time.monotonic()

    def note(self, stream: str, contents: Iterable[bytes], fate: Fate) -> None:
        """See `Ledger.note`."""
        digests = [_digest(content) for content in contents]
        with self._lock:
            kept, instant = self._kept[stream, fate], time.monotonic() - self._begun
            for digest in digests:
                kept.add(digest, instant)
            self._counts[fate] += 1

    def seconds(self) -> float:
        """Since the ledger was begun, as in the examples of an account."""
        return time.monotonic() - self._begun

    def account(self, buckets: Buckets) -> Account:
        """See `Ledger.account`; holds one object of each reader at a time."""
        account = Account()
        for stream in (*REPORTS, *FILES):
            self._settle(account, stream, Counter(_held(buckets, getattr(buckets, stream), is_batch=stream in REPORTS)))
        return account

    def _settle(self, account: Account, stream: str, found: Counter[bytes]) -> None:
        faults: defaultdict[str, list[float | None]] = defaultdict(list)
        for fate in Fate:
            for digest, instant in self._kept[stream, fate]:
                count = found.pop(digest, 0)
                account.acknowledged += fate is Fate.ACKNOWLEDGED
                account.delivered += fate is Fate.ACKNOWLEDGED and count > 0
                if fate is Fate.ACKNOWLEDGED and not count:
                    faults["lost"].append(instant)
                if fate is Fate.REFUSED and count:
                    faults["there_though_refused"].append(instant)
                if count > 1:
                    faults["doubled"].append(instant)
        faults["never_sent"] += [None] * len(found)
        for what, instants in faults.items():
            setattr(account, what, getattr(account, what) + len(instants))
            if instants:
                when = "" if instants[0] is None else f", one of them answered, or not, {instants[0]:.2f} s after the beginning"
                account.examples.append(f"{stream}: {len(instants)} {what.replace('_', ' ')}{when}")


def _held(buckets: Buckets, bucket: str, *, is_batch: bool) -> Iterator[bytes]:
    """The hash of every line, or file, that a bucket holds."""

    def hashes(key: str) -> list[bytes]:
        found = buckets.get(bucket, key)
        return [_digest(line) for line in found.lines()] if is_batch else [_digest(found.body)]

    with ThreadPoolExecutor(_READERS) as readers:
        for digests in readers.map(hashes, stored.keys(buckets, bucket)):
            yield from digests


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_HASH_BYTES).digest()
