"""What the gateway has delivered, without the empty object by which it proves that the store refuses to replace."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from testkit.buckets import Buckets, StoredObject

PROOF = ".lightfile6-insights-gateway-proof"
_READERS = 8


def keys(buckets: Buckets, bucket: str) -> list[str]:
    """The keys of what was delivered to a bucket."""
    return [key for key in buckets.keys(bucket) if key.rpartition("/")[2] != PROOF]


def files(buckets: Buckets, bucket: str) -> list[StoredObject]:
    """The objects delivered to a bucket, in the order of `keys`."""
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(lambda key: buckets.get(bucket, key), keys(buckets, bucket)))


def batches(buckets: Buckets, bucket: str) -> list[StoredObject]:
    """The batches delivered to a bucket, in the order in which they were sent where they are of one host."""
    return sorted(files(buckets, bucket), key=lambda batch: _order(batch.key))


def _order(key: str) -> tuple[str, int]:
    """Second and further batches of an hour have a number in their key: `2026112114.host.2.jsonl.gz`."""
    hour, _, *number = key.rpartition("/")[2].removesuffix(".jsonl.gz").split(".")
    return hour, int(number[0]) if number and number[0].isdigit() else 1


def etags(buckets: Buckets, bucket: str) -> list[str]:
    """The ETag of each object delivered to a bucket, which is the MD5 of its bytes where it was not sent in parts."""
    listed = buckets.client.list_objects(bucket, recursive=True)
    return [str(one.etag) for one in listed if str(one.object_name).rpartition("/")[2] != PROOF]
