"""A MinIO of the benchmark's own, and what is in it."""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import minio

from benchmarks.settings import CannotRun, Settings, Wrong
from testkit.servers.minio import Minio, MinioError, MinioProcess, binary
from testkit.servers.source import cache_folder

BUCKETS = ("usage", "error", "specimen")
# By it the gateway tries whether the store honours conditions.
PROOF = "-proof"


@dataclass(frozen=True, slots=True)
class Store:
    """A MinIO with the three buckets.

    Attributes:
        variables: what a gateway is told to use it, by the names of the environment.
    """

    variables: Mapping[str, str]
    _client: minio.Minio

    def count_lines(self, prefix: str, line: bytes) -> int:
        """How many lines the usage objects hold; `Wrong` unless every one is `line`, and hash and count are as told."""
        total = 0
        for name in self._names("usage", prefix):
            with self._client.get_object("usage", name) as answer:
                lines = gzip.decompress(answer.read())
                told = {key.lower(): value for key, value in answer.headers.items()}
            count = lines.count(b"\n")
            if lines != line * count:
                raise Wrong(f"{name} holds a line that nobody sent")
            stated = (told.get("x-amz-meta-lines"), told.get("x-amz-meta-sha256"))
            if stated != (str(count), hashlib.sha256(lines).hexdigest()):
                raise Wrong(f"{name} says of itself what is not so: {stated}")
            total += count
        return total

    def count_files(self, prefix: str, content: bytes) -> int:
        """How many specimens there are; `Wrong` unless the store has the MD5 of `content` for every one."""
        digest = hashlib.md5(content).hexdigest()
        total = 0
        for found in self._client.list_objects("specimen", prefix, recursive=True):
            if str(found.object_name).endswith(PROOF):
                continue
            if (str(found.etag).strip('"'), found.size) != (digest, len(content)):
                raise Wrong(f"{found.object_name} is not what was sent")
            total += 1
        return total

    def _names(self, bucket: str, prefix: str) -> list[str]:
        names = (str(found.object_name) for found in self._client.list_objects(bucket, prefix, recursive=True))
        return [name for name in names if not name.endswith(PROOF)]


@contextmanager
def running(settings: Settings) -> Iterator[Store]:
    """Run a MinIO on loopback; `CannotRun` if there is none and none can be built."""
    try:
        process = MinioProcess(_program(settings), settings.directory)
        process.start()
    except MinioError as error:
        raise CannotRun(f"there is no MinIO, and --minio-binary names none: {error}") from error
    try:
        yield _prepared(process.minio)
    finally:
        process.stop()


def _program(settings: Settings) -> Path:
    if settings.minio is not None:
        return settings.minio
    return binary(cache=cache_folder(), say=lambda text: print(f"benchmark: {text}", file=sys.stderr, flush=True))


def _prepared(server: Minio) -> Store:
    address = server.endpoint.removeprefix("http://")
    client = minio.Minio(address, access_key=server.access_key, secret_key=server.secret_key, secure=False, region="us-east-1")
    for bucket in BUCKETS:
        client.make_bucket(bucket)
    variables = {
        "LIGHTFILE6_AWS_ENDPOINT": server.endpoint,
        "LIGHTFILE6_AWS_ACCESS_KEY_ID": server.access_key,
        "LIGHTFILE6_AWS_SECRET_ACCESS_KEY": server.secret_key,
        **{f"LIGHTFILE6_S3_{bucket.upper()}_BUCKET": bucket for bucket in BUCKETS},
    }
    return Store(variables, client)
