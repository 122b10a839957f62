"""Streams that only the configuration knows are received, kept, delivered and recovered as the built-in ones are."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Gateway, MakeGateway, Settings, settings_for
from testkit.servers.minio import MinioProcess
from testkit.stored import batches, files

QUICK = {"connect_timeout": "1s", "read_timeout": "5s"}


def with_streams(buckets: Buckets, streams: dict[str, Any], **sections: Any) -> Settings:
    """Settings with an `audit` of reports and a `crash` of files that share the buckets with prefixes of their own."""
    added = {
        "audit": {"form": "reports", "path": "/v1/audit", "bucket": buckets.usage, "prefix": "audit", "interval": "1s"},
        "crash": {"form": "files", "bucket": buckets.specimen, "prefix": "crash"},
    }
    return settings_for(buckets, s3=QUICK, streams={**added, **streams}, **sections)


def audits(buckets: Buckets) -> list[bytes]:
    """The reports of the stream that was added."""
    return sorted(line for one in batches(buckets, buckets.usage) if one.key.startswith("audit/") for line in one.lines())


def crashes(buckets: Buckets) -> list[bytes]:
    """The files of the stream that was added."""
    return sorted(one.body for one in files(buckets, buckets.specimen) if one.key.startswith("crash/"))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_added_stream_is_one_like_the_others(workers: int, buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Reports and files of added streams are answered, measured, batched and stored under their own prefixes."""
    settings = with_streams(buckets, {"specimen": {"enabled": False}}, server={"workers": workers})
    del settings["s3"]["specimen_bucket"]
    gateway = make_gateway(settings)
    gateway.start()
    assert [gateway.put("/v1/audit", b'{"n":%d}' % number) for number in range(20)] == [204] * 20
    lines = b'{"many":1}\n{"many":2}\n'
    assert gateway.put("/v1/audit", lines, headers={"Content-Type": "application/x-ndjson"}) == 204
    assert [gateway.put(f"/crash?uri=core.{number}", b"core %d" % number) for number in range(3)] == [204] * 3
    assert gateway.put("/crash", b"core") == 400, "a file is named"
    assert gateway.put("/audit", b"1") == 404
    assert gateway.put("/specimen?uri=a", b"1") == 404, "it is disabled"
    until(lambda: len(audits(buckets)) == 22 and len(crashes(buckets)) == 3, "everything to be delivered")
    assert audits(buckets) == sorted([b'{"n":%d}' % number for number in range(20)] + lines.split())
    assert crashes(buckets) == [b"core %d" % number for number in range(3)]
    assert gateway.metric("received_total", stream="audit") == 22
    assert gateway.metric("delivered_total", stream="crash") == 3
    assert gateway.metric("request_duration_seconds_count", route="/v1/audit") == 21
    assert gateway.stop() == 0
    assert gateway.left() == []


class Sender:
    """Sends reports and files to the added streams until it is told to stop, and keeps what was acknowledged."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._over = threading.Event()
        self.acknowledged: Counter[bytes] = Counter()
        self._sent = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self._sent += 1
            body = b'{"n":%d}' % self._sent
            path = "/v1/audit" if self._sent % 4 else f"/crash?uri={self._sent}"
            try:
                if self._gateway.put(path, body) == 204:
                    self.acknowledged[body] += 1
            except OSError:
                # Killed, or not there yet.
                self._over.wait(0.02)

    def stop(self) -> None:
        """Return once nothing is sent any more."""
        self._over.set()
        self._thread.join()


def test_an_added_stream_survives_kills_and_an_outage(
    own_minio: MinioProcess, own_buckets: Buckets, make_gateway: MakeGateway
) -> None:
    """Killed under load, also while the store is away, an added stream delivers each acknowledged thing exactly once."""
    gateway = make_gateway(with_streams(own_buckets, {}, spool={"segment_max_age": "50ms"}))
    gateway.start()
    port = gateway.port
    sender = Sender(gateway)
    try:
        for is_away in (False, True, False):
            if is_away:
                own_minio.stop()
            enough = sum(sender.acknowledged.values()) + 100
            until(lambda enough=enough: sum(sender.acknowledged.values()) >= enough, "some to be acknowledged")  # type: ignore[misc]
            gateway.kill()
            gateway.launch(port)
            until(lambda: gateway.events("listening"), "the next start")
            if is_away:
                own_minio.start()
    finally:
        sender.stop()
    assert gateway.stop(60) == 0, gateway.said()
    assert gateway.left() == []
    found = Counter(audits(own_buckets)) + Counter(crashes(own_buckets))
    assert [body for body in sender.acknowledged if found[body] != 1] == []
    assert [body for body, count in found.items() if count != 1] == [], "an unanswered one came twice"


def test_a_stream_that_is_gone_waits_until_it_is_back(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Taken out of the configuration it keeps what waits, says so everywhere, and delivers it when it is put back."""
    held = with_streams(buckets, {"audit": {"form": "reports", "path": "/v1/audit", "bucket": "not-there-yet", "interval": "1s"}})
    gateway = make_gateway(held, folder="gateway")
    gateway.start()
    assert [gateway.put("/v1/audit", b'{"n":%d}' % number) for number in range(5)] == [204] * 5
    assert gateway.put("/crash?uri=a", b"core") == 204
    until(lambda: crashes(buckets) == [b"core"], "the other stream")
    gateway.kill()

    gone = make_gateway({**settings_for(buckets), "streams": {}}, folder="gateway")
    gone.start()
    (line,) = gone.events("stream not configured")
    assert (line["stream"], line["waiting_files"]) == ("audit", 1)
    ready = gone.get("/ready")
    assert (ready.status, ready.json()["status"]) == (200, "degraded")
    (reason,) = ready.json()["degraded"]
    assert reason.startswith("audit: 1 file waits, and the stream is not configured: put streams.audit back")
    assert gone.metric("waiting_files", stream="audit") == 1
    assert gone.put("/v1/audit", b"1") == 404
    assert gone.stop() == 3, "data is left"
    assert gone.events("quarantined") == []

    back = make_gateway(with_streams(buckets, {}), folder="gateway")
    back.start()
    assert back.stop(60) == 0
    assert audits(buckets) == [b'{"n":%d}' % number for number in range(5)]
    assert back.left() == []


def test_a_form_is_not_changed_under_what_waits(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """With reports waiting a stream does not start as one of files; the message says what to do, and nothing is touched."""
    gateway = make_gateway(with_streams(buckets, {"audit": {"form": "reports", "bucket": "not-there-yet", "interval": "1h"}}))
    gateway.start()
    assert gateway.put("/audit", b'{"n":1}') == 204
    gateway.kill()
    gateway.configure(streams={"audit": {"form": "files", "interval": None}})
    for command in (("-p", "0"), ("check-config",)):
        done = gateway.run(*command, *gateway.with_config())
        assert done.returncode in (1, 2)
        assert "streams.audit.form: is files, and 1 files wait" in done.stderr
        # Else the next start would wait to see whether its writer still lives.
        assert not (gateway.cache / ".owner").exists()
    assert [name.rpartition(".")[2] for name in gateway.left() if name.startswith("audit/")] == ["open"]
