"""What lies in the buckets beside the gateway's own, and the account of what came into them."""

from __future__ import annotations

import contextlib
import hashlib

from integration import stored
from integration.buckets import Buckets, StoredObject
from integration.ledger import REPORTS, Account, Ledger
from integration.load import Request
from minio.error import S3Error

from reliability.row import Site

PART = 5 << 20


class Shelves(Buckets):
    """Three buckets in which also objects of a stranger lie, which are none of those that the gateway has delivered."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.minio.minio)
        self.strangers: dict[tuple[str, str], StoredObject] = {}

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """See `Buckets.keys`; without the stranger's."""
        return [key for key in super().keys(bucket, prefix) if (bucket, key) not in self.strangers]

    def plant(self, bucket: str, key: str) -> None:
        """Put an object of the stranger's under a key, if nothing is there."""
        body = f"the stranger's, under {key}".encode()
        # The client's own call would replace what is there; metadata as the gateway's, of another batch and another file.
        nobody = "0" * 32
        with contextlib.suppress(S3Error):
            self.client._execute(
                "PUT", bucket, key, body, {"If-None-Match": "*", "x-amz-meta-batch": nobody, "x-amz-meta-id": nobody}
            )
            self.strangers[bucket, key] = self.get(bucket, key)

    def disturbed(self) -> list[str]:
        """The keys of those that are not what they were, down to the second of their writing."""
        marks = ("etag", "last-modified", "content-type")
        wrong = []
        for (bucket, key), before in self.strangers.items():
            now = self.get(bucket, key)
            same = now.body == before.body and now.metadata == before.metadata
            if not same or any(now.headers[mark] != before.headers[mark] for mark in marks):
                wrong.append(f"{bucket}/{key}")
        return wrong

    def uploads(self) -> list[str]:
        """The keys of uploads in parts that were begun and neither completed nor aborted."""
        return [key for bucket in self.all for key in self.unfinished_uploads(bucket)]


class WholeLedger(Ledger):
    """A ledger that reads each specimen, since the ETag of one that was sent in parts is no digest of its bytes."""

    def account(self, buckets: Buckets) -> Account:
        """See `Ledger.account`."""
        account = Account()
        for stream in REPORTS:
            lines = buckets.lines(getattr(buckets, stream))
            self._compare(account, stream, [_md5(line) for line in lines])
        self._compare(account, "specimen", [_md5(one.body) for one in stored.files(buckets, buckets.specimen)])
        return account


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def large_specimen(number: int) -> Request:
    """A specimen of two parts, unlike every other."""
    body = b"".join(hashlib.sha256(b"%d %d" % (number, block)).digest() for block in range((PART + 100_000) // 32))
    return Request("specimen", f"/specimen?uri=large-{number}.bin", body, (body,), "application/octet-stream")
