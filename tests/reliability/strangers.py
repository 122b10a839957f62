"""Buckets in which a stranger's objects lie too, under the very keys that the gateway would choose.

And those out of which a reader removes what it has read, as out of a queue.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from minio.error import S3Error

from testkit.buckets import Buckets, StoredObject
from testkit.servers.minio import Minio
from testkit.stored import PROOF


class SharedBuckets(Buckets):
    """Three buckets; the objects of the stranger are none of those that were delivered."""

    def __init__(self, minio: Minio) -> None:
        super().__init__(minio)
        self._strangers: dict[tuple[str, str], StoredObject] = {}
        self._taken_away: list[tuple[str, str]] = []
        # What a reader has read and removed, and the keys under which it has found something else later.
        self._read: dict[tuple[str, str], StoredObject] = {}
        self.used_again: list[str] = []

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """See `Buckets.keys`; without the stranger's, and with what was read and removed."""
        there = {key for key in super().keys(bucket, prefix) if (bucket, key) not in self._strangers}
        return sorted(there | {key for where, key in list(self._read) if where == bucket and key.startswith(prefix)})

    def get(self, bucket: str, key: str) -> StoredObject:
        """See `Buckets.get`; also what was read and removed."""
        return self._read.get((bucket, key)) or super().get(bucket, key)

    @contextlib.contextmanager
    def being_read(self, bucket: str) -> Iterator[None]:
        """Read and remove, all the time, whatever comes into a bucket."""
        is_over = threading.Event()

        def read() -> None:
            while not is_over.wait(0.02):
                self.read_away(bucket)

        with ThreadPoolExecutor(1) as thread:
            reading = thread.submit(read)
            try:
                yield
            finally:
                is_over.set()
            reading.result()

    def read_away(self, bucket: str) -> None:
        """Read and remove all that is in a bucket now. What comes a second time as it was is passed over, as by its key."""
        for key in super().keys(bucket):
            if (bucket, key) in self._strangers or key.endswith(PROOF):
                continue
            found = super().get(bucket, key)
            before = self._read.setdefault((bucket, key), found)
            if before.body != found.body:
                self.used_again.append(key)
                self._read[bucket, f"{key} ({len(self.used_again)})"] = found
            self.client.remove_object(bucket, key)

    def plant(self, bucket: str, key: str) -> None:
        """Put an object of the stranger's under a key, if nothing is there."""
        body = f"the stranger's, under {key}".encode()
        # The client's own call would replace what is there; metadata as the gateway's, of another batch and another file.
        nobody = "0" * 32
        with contextlib.suppress(S3Error):
            self.client._execute(
                "PUT", bucket, key, body, {"If-None-Match": "*", "x-amz-meta-batch": nobody, "x-amz-meta-id": nobody}
            )
            self._strangers[bucket, key] = self.get(bucket, key)

    def take_away(self, bucket: str) -> None:
        """Remove all that the stranger has there, so that its keys are free."""
        for where, key in [one for one in self._strangers if one[0] == bucket]:
            self.client.remove_object(where, key)
            del self._strangers[where, key]
            self._taken_away.append((where, key))

    def strangers(self, bucket: str) -> list[str]:
        """The keys that the stranger has, or had."""
        return [key for where, key in [*self._strangers, *self._taken_away] if where == bucket]

    def disturbed(self) -> list[str]:
        """The stranger's objects that are not what they were, down to the second of their writing."""
        marks = ("etag", "last-modified", "content-type")
        wrong = []
        for (bucket, key), before in self._strangers.items():
            now = self.get(bucket, key)
            same = now.body == before.body and now.metadata == before.metadata
            if not same or any(now.headers[mark] != before.headers[mark] for mark in marks):
                wrong.append(f"{bucket}/{key}")
        return wrong

    def forget(self) -> None:
        """Take what is the stranger's for what was delivered, so that it is removed with the rest."""
        self._strangers.clear()
