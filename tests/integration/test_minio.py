from __future__ import annotations

import gzip
import io
import time
from pathlib import Path

import pytest

from testkit.buckets import Buckets
from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers.every import on_every_server
from testkit.servers.minio import MinioError, MinioProcess, healthy


def put(buckets: Buckets, bucket: str, key: str, body: bytes) -> None:
    """Put one object with one metadata key."""
    buckets.client.put_object(bucket, key, io.BytesIO(body), len(body), metadata={"User": "alice"})


@on_every_server
def test_objects_are_read_as_stored(buckets: Buckets) -> None:
    """What was put is found again: its key, its bytes, its metadata and its lines."""
    body = gzip.compress(b'{"n":1}\n{"n":2}\n')
    put(buckets, buckets.usage, "a/b.jsonl.gz", body)
    (found,) = buckets.objects(buckets.usage, "a/")
    assert (found.key, found.body, found.metadata) == ("a/b.jsonl.gz", body, {"user": "alice"})
    assert buckets.lines(buckets.usage) == [b'{"n":1}', b'{"n":2}']
    assert buckets.keys(buckets.error) == []


def test_lines_must_end(buckets: Buckets) -> None:
    """An object that was cut in the middle of a line is not taken for a whole one."""
    put(buckets, buckets.usage, "cut.jsonl.gz", gzip.compress(b'{"n":1}\n{"n"'))
    with pytest.raises(AssertionError, match="middle of a line"):
        buckets.lines(buckets.usage)


@on_every_server
def test_unfinished_uploads_are_seen(buckets: Buckets) -> None:
    """A multipart upload that was begun and left is listed."""
    assert buckets.unfinished_uploads(buckets.specimen) == []
    buckets.client._create_multipart_upload(buckets.specimen, "half/done", {})
    assert buckets.unfinished_uploads(buckets.specimen) == ["half/done"]


def test_own_minio_comes_back(own_minio: MinioProcess, own_buckets: Buckets) -> None:
    """A MinIO that is stopped does not answer, and has the same port and the same data when it is started again."""
    put(own_buckets, own_buckets.usage, "kept", b"data")
    own_minio.stop()
    assert not healthy(own_minio.minio.endpoint)
    own_minio.start()
    assert own_buckets.get(own_buckets.usage, "kept").body == b"data"


def test_start_tells_why_it_failed(tmp_path: Path) -> None:
    """A MinIO that ends at once is an error with what it printed, not a wait."""
    broken = tmp_path / "minio"
    broken.write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
    broken.chmod(0o755)
    began = time.monotonic()
    with pytest.raises(MinioError, match=r"exited 3:\nthe disk is on fire"):
        MinioProcess(broken, tmp_path).start()
    assert time.monotonic() - began < 10 * TIMEOUT_FACTOR
