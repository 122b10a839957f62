from __future__ import annotations

import gzip
import hashlib
import json
import re
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import pytest

from testkit.buckets import Buckets, StoredObject
from testkit.deadlines import until
from testkit.forms import BOUNDARY, file_part, form, part
from testkit.gateway_process import HOST, MakeGateway, settings_for
from testkit.servers.every import on_every_server
from testkit.stored import batches, files

pytestmark = on_every_server

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


def hour_in(key: str) -> datetime:
    """Read the hour out of the key of a batch, which must say it twice in the same way."""
    found = re.fullmatch(rf"(?:.*/)?(\d{{4}})/(\d\d)/(\d\d)/(\d\d)/(\d{{10}})\.{HOST}(\.\d+)?\.jsonl\.gz", key)
    assert found is not None, key
    assert "".join(found.groups()[:4]) == found[5]
    return datetime.strptime(found[5], "%Y%m%d%H").replace(tzinfo=UTC)


def the_batch(buckets: Buckets, bucket: str) -> StoredObject:
    """Wait for the one batch of a bucket."""
    (batch,) = until(lambda: batches(buckets, bucket), f"a batch in {bucket}")
    return batch


@pytest.mark.parametrize("stream", ["usage", "error"])
def test_reports_become_one_object(buckets: Buckets, make_gateway: MakeGateway, stream: str) -> None:
    """Reports of an interval become one gzip object: the lines as sent, hour and host in the key, the proof in the metadata."""
    gateway = make_gateway(settings_for(buckets, s3={"usage_prefix": "u/", "error_prefix": "e"}))
    gateway.start()
    began = datetime.now(UTC)
    assert gateway.put(f"/{stream}", b'{"n": 1, "text": "\xe6\x97\xa5\xe6\x9c\xac"}') == 204
    assert gateway.put(f"/{stream}", b'{\n  "n": 2,\r\n  "odd": 1e400\n}') == 204
    assert gateway.put(f"/{stream}", b'{"n":3}\r\n\n{"n":4}\n', headers={"Content-Type": "application/x-ndjson"}) == 204
    # The interval may end between two of them: stopping makes sure of the last.
    assert gateway.stop() == 0
    stored = batches(buckets, getattr(buckets, stream))
    lines = [line for batch in stored for line in batch.lines()]
    assert lines == [b'{"n": 1, "text": "\xe6\x97\xa5\xe6\x9c\xac"}', b'{   "n": 2,    "odd": 1e400 }', b'{"n":3}', b'{"n":4}']
    for batch in stored:
        assert batch.key.startswith({"usage": "u/", "error": "e/"}[stream])
        assert began.replace(minute=0, second=0, microsecond=0) <= hour_in(batch.key) <= datetime.now(UTC)
        assert batch.headers["content-type"] == "application/gzip"
        assert "content-encoding" not in batch.headers
        whole = b"".join(line + b"\n" for line in batch.lines())
        assert batch.metadata["sha256"] == hashlib.sha256(whole).hexdigest()
        assert batch.metadata["lines"] == str(len(batch.lines()))
        assert re.fullmatch("[0-9a-f]{32}", batch.metadata["batch"])
    assert gateway.left() == []


def test_the_interval_delivers(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A report is delivered at the end of its interval while the gateway goes on, and `/metrics` and the log tell of it."""
    gateway = make_gateway(settings_for(buckets))
    gateway.start()
    assert gateway.get("/ready").json() == {"status": "ready", "degraded": []}
    assert gateway.put("/error", b'{"boom":true}') == 204
    batch = the_batch(buckets, buckets.error)
    assert batch.lines() == [b'{"boom":true}']
    until(lambda: gateway.metric("waiting_files", stream="error") == 0, "the report to be retired")
    assert gateway.metric("received_total", stream="error") == 1
    until(lambda: gateway.metric("delivered_total", stream="error") == 1, "it to be counted")
    (sent,) = until(lambda: gateway.events("object delivered", stream="error"), "it to be told")
    assert (sent["bucket"], sent["key"], sent["items"]) == (buckets.error, batch.key, 1)


def test_specimen_becomes_an_object(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A specimen is delivered at once under its user, day and name, byte for byte, with what it is in the metadata."""
    gateway = make_gateway(settings_for(buckets, s3={"specimen_prefix": "s"}))
    gateway.start()
    uri = "https://example.com/pictures/sunset.PNG?size=1"
    began = datetime.now(UTC)
    assert gateway.put(f"/specimen?uri={quote(uri, safe='')}", PNG, user="machine 1/日本") == 204
    (stored,) = until(lambda: files(buckets, buckets.specimen), "the specimen")
    assert stored.body == PNG
    found = re.fullmatch(r"s/machine%201%2F%E6%97%A5%E6%9C%AC/(\d{4}/\d\d/\d\d)/sunset\.\d{19}\.png", stored.key)
    assert found is not None, stored.key
    assert f"{began:%Y/%m/%d}" <= found[1] <= f"{datetime.now(UTC):%Y/%m/%d}"
    assert stored.headers["content-type"] == "image/png"
    assert "content-encoding" not in stored.headers
    metadata = stored.metadata
    assert re.fullmatch("[0-9a-f]{32}", metadata["id"])
    assert metadata["uri"] == uri
    assert (metadata["user"], metadata["encoded"]) == ("machine%201/%E6%97%A5%E6%9C%AC", "user")
    assert metadata["sha256"] == hashlib.sha256(PNG).hexdigest()
    received = datetime.fromisoformat(metadata["received"])
    assert began <= received <= datetime.now(UTC)
    until(lambda: gateway.left() == [], "the spool to be empty")
    assert gateway.stop() == 0


def test_a_form_becomes_an_object(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """The file of a form is delivered byte for byte with its charset, its filename and the fields that came with it."""
    gateway = make_gateway(settings_for(buckets))
    gateway.start()
    text = "写真の説明\r\n".encode("shift_jis")
    body = form(
        part(b"Lightfile6", 'name="prod"'),
        part('日本 "2"'.encode(), 'name="title"'),
        file_part(text, "C:\\説明.TXT", 'Content-Type: Text/Plain; charset=Shift_JIS; title="a; b"'),
        part(b"again", 'name="prod"'),
    )
    head = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "Content-Encoding": "gzip"}
    assert gateway.put("/specimen", gzip.compress(body), headers=head) == 204
    assert gateway.stop() == 0
    (stored,) = files(buckets, buckets.specimen)
    assert stored.body == text
    assert re.fullmatch(r"alice/\d{4}/\d\d/\d\d/%E8%AA%AC%E6%98%8E\.\d{19}\.txt", stored.key)
    assert stored.headers["content-type"] == 'text/plain; charset=Shift_JIS; title="a; b"'
    metadata = stored.metadata
    assert metadata["encoded"] == "uri filename"
    assert unquote(metadata["filename"]) == unquote(metadata["uri"]) == "C:\\説明.TXT"
    assert json.loads(metadata["fields"]) == [["prod", "Lightfile6"], ["title", '日本 "2"'], ["prod", "again"]]
    assert metadata["sha256"] == hashlib.sha256(text).hexdigest()
    assert gateway.left() == []


def test_what_does_not_fit_stands_beside(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A uri of 4,000 characters is found whole in the object beside the specimen."""
    gateway = make_gateway(settings_for(buckets))
    gateway.start()
    uri = "file:///" + "長い" * 2000
    assert gateway.put(f"/specimen?uri={quote(uri, safe='')}", b"few bytes") == 204
    assert gateway.stop() == 0
    specimen, beside = sorted(files(buckets, buckets.specimen), key=lambda one: len(one.key))
    assert specimen.body == b"few bytes"
    assert beside.key == f"{specimen.key}.meta.json"
    assert beside.headers["content-type"] == "application/json"
    assert json.loads(beside.body)["uri"] == uri
    assert gateway.left() == []
