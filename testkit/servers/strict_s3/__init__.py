"""A strict stand-in for S3: in memory, and refusing what S3 documents as refused.

`fake_s3.py` is the other stand-in: it takes nearly everything, and misbehaves when a test asks for it.
This one never misbehaves. A client that it serves has signed what it sends, and has named its checksums alike from the first
call of an upload to the last, which a lenient server does not ask for:

    head        signatures.py   who sends it, for which region, and what is signed
                rules.py        headers that are not known, metadata and keys that are too long
    body        payloads.py     out of its chunks, whose signatures, trailers and length are checked
                checksums.py    the checksum that came with it is that of the body
    operation   server.py       buckets, conditions, object lock
                buckets.py      what tests ask about buckets
                uploads.py      parts: their checksums, their sizes, their order
    refused     refusals.py     as S3 words it: status, code, XML
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from testkit.servers.fake_s3 import serving
from testkit.servers.strict_s3.server import ACCESS_KEY, REGION, SECRET_KEY, Call, Kept, StrictS3
from testkit.servers.strict_s3.uploads import LEAST_PART

__all__ = ["ACCESS_KEY", "LEAST_PART", "REGION", "SECRET_KEY", "Call", "Kept", "StrictS3", "strict_s3"]


@contextmanager
def strict_s3(
    buckets: Iterable[str] = ("bucket",), *, least_part: int = LEAST_PART, tls: ssl.SSLContext | None = None
) -> Iterator[StrictS3]:
    """Run one on a free port."""
    with serving(StrictS3(buckets, least_part=least_part), tls=tls) as running:
        yield running
