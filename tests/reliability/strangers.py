"""Buckets in which a stranger's objects lie too, under the very keys that the gateway would choose."""

from __future__ import annotations

import contextlib

from integration.buckets import Buckets, StoredObject
from integration.minio import Minio
from minio.error import S3Error


class SharedBuckets(Buckets):
    """Three buckets; the objects of the stranger are none of those that were delivered."""

    def __init__(self, minio: Minio) -> None:
        super().__init__(minio)
        self._strangers: dict[tuple[str, str], StoredObject] = {}
        self._taken_away: list[tuple[str, str]] = []

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """See `Buckets.keys`; without the stranger's."""
        return [key for key in super().keys(bucket, prefix) if (bucket, key) not in self._strangers]

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
