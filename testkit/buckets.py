"""Looks into the buckets that a gateway under test delivers to."""

from __future__ import annotations

import gzip
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

import minio as s3
import urllib3
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers.minio import Minio


@dataclass(frozen=True)
class StoredObject:
    """One object as the store holds it.

    Attributes:
        body: the bytes as stored, not decompressed.
        headers: what the store answers with it, names in lower case.
        metadata: the `x-amz-meta-` headers, without that prefix, names in lower case.
    """

    key: str
    body: bytes
    headers: Mapping[str, str]
    metadata: Mapping[str, str]

    def lines(self) -> list[bytes]:
        """Return the lines of a gzip object, without their line ends; the last one must have one too."""
        *lines, rest = gzip.decompress(self.body).split(b"\n")
        assert rest == b"", f"{self.key} ends in the middle of a line"
        return lines


class Buckets:
    """Three fresh buckets and a blocking client for them; every wait of it has a deadline."""

    def __init__(self, minio: Minio) -> None:
        self.minio = minio
        name = secrets.token_hex(6)
        self.usage = f"usage-{name}"
        self.error = f"error-{name}"
        self.specimen = f"specimen-{name}"
        # A MinIO that has just been started says 503, and that one should come back in a minute; it takes a moment.
        retries = urllib3.Retry(
            8, backoff_factor=0.1, status_forcelist={503}, allowed_methods=None, respect_retry_after_header=False
        )
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(10 * TIMEOUT_FACTOR), retries=retries)
        self.client = s3.Minio(
            minio.endpoint.removeprefix("http://"),
            access_key=minio.access_key,
            secret_key=minio.secret_key,
            secure=False,
            region="us-east-1",
            http_client=self._pool,
        )
        for bucket in self.all:
            self.client.make_bucket(bucket)

    @property
    def all(self) -> tuple[str, str, str]:
        """The three names: usage, error, specimen."""
        return self.usage, self.error, self.specimen

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys under the prefix, in the store's order."""
        return [str(found.object_name) for found in self.client.list_objects(bucket, prefix, recursive=True)]

    def get(self, bucket: str, key: str) -> StoredObject:
        """Return one object, whole."""
        response = self.client.get_object(bucket, key)
        try:
            headers = {name.lower(): value for name, value in response.headers.items()}
            mark = "x-amz-meta-"
            metadata = {name.removeprefix(mark): value for name, value in headers.items() if name.startswith(mark)}
            # The body is wanted as stored, also where the object has a Content-Encoding.
            return StoredObject(key, response.read(decode_content=False), headers, metadata)
        finally:
            response.close()
            response.release_conn()

    def objects(self, bucket: str, prefix: str = "") -> list[StoredObject]:
        """Return every object under the prefix, in the order of `keys`."""
        return [self.get(bucket, key) for key in self.keys(bucket, prefix)]

    def lines(self, bucket: str, prefix: str = "") -> list[bytes]:
        """Return the lines of every gzip object under the prefix, in the order of `keys`."""
        return [line for found in self.objects(bucket, prefix) for line in found.lines()]

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """Return the keys of multipart uploads that were begun and neither completed nor aborted."""
        # The client keeps this call private, and has no other that lists them all.
        return [str(upload.object_name) for upload in self.client._list_multipart_uploads(bucket).uploads]

    def remove(self) -> None:
        """Delete the buckets with what is in them."""
        for bucket in self.all:
            self.remove_bucket(bucket)

    def remove_bucket(self, bucket: str) -> None:
        """Delete one bucket with what is in it."""
        tries = 3
        while tries:
            tries -= 1
            wanted = (DeleteObject(key) for key in self.keys(bucket))
            assert list(self.client.remove_objects(bucket, wanted)) == [], "objects that cannot be deleted"
            try:
                self.client.remove_bucket(bucket)
            except S3Error as error:
                # A put that its client gave up may still be done by the server.
                if error.code != "BucketNotEmpty" or not tries:
                    raise
                time.sleep(0.2)
            else:
                return

    def close(self) -> None:
        """Close the client's connections."""
        self._pool.clear()
