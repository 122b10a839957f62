from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable

import pytest

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.forms import BOUNDARY, file_part, form
from testkit.gateway_process import Gateway, MakeGateway, settings_for
from testkit.servers.every import on_every_server
from testkit.stored import batches, files, keys

pytestmark = on_every_server

MB = 1_000_000
MIB = 1 << 20
# What receiving, aggregating or sending may take above the memory of an idle gateway, however large the body is.
ALLOWANCE = 32 * MIB


def warm(gateway: Gateway, buckets: Buckets) -> None:
    """Have everything loaded and opened that the first body needs, so that it is not taken for the body's."""
    assert gateway.put("/usage", b'{"warm":true}') == 204
    assert gateway.put("/specimen?uri=warm.bin", b"warm") == 204
    until(lambda: keys(buckets, buckets.usage) and keys(buckets, buckets.specimen), "the first deliveries")
    until(lambda: gateway.left() == [], "the spool to be empty")


@pytest.mark.parametrize("size", [5 * MB, 100 * MB], ids=["5MB", "100MB"])
def test_large_report(buckets: Buckets, make_gateway: MakeGateway, size: int) -> None:
    """A large report is delivered byte for byte, in parts where it is above the part size, in little memory."""
    gateway = make_gateway(
        settings_for(buckets, limits={"report_bytes": "128MiB"}, s3={"part_size": "16MiB"}, aggregation={"usage_interval": "1s"})
    )
    gateway.start()
    warm(gateway, buckets)
    before = gateway.forget_peak()
    # Base64 of randomness, because what compresses well would be no large object.
    report = b'{"data":"' + base64.b64encode(os.urandom(size * 3 // 4)) + b'"}'
    assert gateway.put("/usage", report) == 204
    until(lambda: len(keys(buckets, buckets.usage)) == 2, "the large batch", timeout_s=60)
    until(lambda: gateway.left() == [], "the spool to be empty")
    taken = gateway.peak_memory() - before
    assert taken < ALLOWANCE, f"{taken / MIB:.0f} MiB for a body of {size / MIB:.0f} MiB"
    batch = batches(buckets, buckets.usage)[-1]
    assert ("-" in batch.headers["etag"]) == (len(batch.body) > 16 * MIB), "sent in parts, or not, by its size"
    assert hashlib.sha256(batch.lines()[0]).digest() == hashlib.sha256(report).digest()
    assert batch.metadata["sha256"] == hashlib.sha256(report + b"\n").hexdigest()
    assert batch.headers["content-type"] == "application/gzip"
    assert buckets.unfinished_uploads(buckets.usage) == []
    assert gateway.stop() == 0


@pytest.mark.parametrize("wrap", [None, file_part], ids=["plain", "form"])
@pytest.mark.parametrize("size", [5 * MB, 100 * MB], ids=["5MB", "100MB"])
def test_large_specimen(buckets: Buckets, make_gateway: MakeGateway, size: int, wrap: Callable[[bytes], bytes] | None) -> None:
    """A large specimen is delivered byte for byte, in parts where it is above the part size, in little memory."""
    gateway = make_gateway(settings_for(buckets, s3={"part_size": "16MiB"}))
    gateway.start()
    warm(gateway, buckets)
    before = gateway.forget_peak()
    specimen = os.urandom(size)
    if wrap is None:
        assert gateway.put("/specimen?uri=large.heic", specimen) == 204
    else:
        head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        assert gateway.put("/specimen?uri=large.heic", form(wrap(specimen)), headers=head) == 204
    until(lambda: len(keys(buckets, buckets.specimen)) == 2, "the large specimen", timeout_s=60)
    until(lambda: gateway.left() == [], "the spool to be empty")
    taken = gateway.peak_memory() - before
    assert taken < ALLOWANCE, f"{taken / MIB:.0f} MiB for a body of {size / MIB:.0f} MiB"
    (stored,) = [one for one in files(buckets, buckets.specimen) if len(one.body) > len(b"warm")]
    assert ("-" in stored.headers["etag"]) == (size > 16 * MIB), "sent in parts, or not, by its size"
    assert hashlib.sha256(stored.body).digest() == hashlib.sha256(specimen).digest()
    assert stored.metadata["sha256"] == hashlib.sha256(specimen).hexdigest()
    assert buckets.unfinished_uploads(buckets.specimen) == []
    assert gateway.stop() == 0


def test_many_reports_in_one_large_body(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """An NDJSON body of 5 MB becomes its lines, all of them and in their order."""
    gateway = make_gateway(settings_for(buckets))
    gateway.start()
    lines = [b'{"n":%d,"text":"%s"}' % (number, b"t" * 480) for number in range(10_000)]
    assert gateway.put("/error", b"\n".join(lines), headers={"Content-Type": "application/x-ndjson"}) == 204
    assert gateway.stop() == 0
    assert buckets.lines(buckets.error) == lines
