from __future__ import annotations

import time

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import STREAMS, MakeGateway, settings_for
from testkit.servers.every import on_every_server
from testkit.servers.minio import MinioProcess
from testkit.stored import files


def test_store_away_and_back(own_minio: MinioProcess, own_buckets: Buckets, make_gateway: MakeGateway) -> None:
    """While the store is away everything is received and held, told once; when it is back all is delivered by itself."""
    # A store that has just come back may take a connection and leave it without an answer.
    gateway = make_gateway(settings_for(own_buckets, s3={"connect_timeout": "1s", "read_timeout": "5s"}))
    gateway.start()
    until(lambda: gateway.get("/ready").json()["status"] == "ready", "the gateway to be ready")
    own_minio.stop()
    for number in range(3):
        assert gateway.put("/usage", b'{"n":%d}' % number) == 204
        assert gateway.put("/error", b'{"n":%d}' % number) == 204
        assert gateway.put(f"/specimen?uri={number}.txt", b"specimen %d" % number) == 204
    until(lambda: gateway.has_retried("transient", 5), "retries")
    ready = gateway.get("/ready")
    assert (ready.status, ready.json()["status"]) == (200, "degraded")
    assert {reason.partition(":")[0] for reason in ready.json()["degraded"]} == set(STREAMS)
    assert gateway.put("/usage", b'{"n":3}') == 204
    assert gateway.metric("store_refusing", stream="usage") == 0

    own_minio.start()
    until(lambda: gateway.left() == [], "everything to be delivered")
    assert sorted(own_buckets.lines(own_buckets.usage)) == [b'{"n":%d}' % number for number in range(4)]
    assert sorted(own_buckets.lines(own_buckets.error)) == [b'{"n":%d}' % number for number in range(3)]
    assert sorted(one.body for one in files(own_buckets, own_buckets.specimen)) == [b"specimen %d" % n for n in range(3)]
    assert gateway.get("/ready").json() == {"status": "ready", "degraded": []}
    for stream in STREAMS:
        (begun,) = gateway.events("delivery failed", stream=stream)
        assert (begun["level"], begun["kind"]) == ("warning", "transient")
        (ended,) = gateway.events("delivery recovered", stream=stream)
        assert ended["count"] >= 5
    assert gateway.stop() == 0


@on_every_server
def test_one_bucket_away_holds_up_no_other(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A stream whose bucket is missing is held until that is made, and the others are delivered meanwhile."""
    late = f"{buckets.usage}-late"
    gateway = make_gateway(settings_for(buckets, s3={"usage_bucket": late}))
    gateway.start()
    assert gateway.put("/usage", b'{"late":true}') == 204
    assert gateway.put("/error", b'{"late":false}') == 204
    until(lambda: buckets.lines(buckets.error) == [b'{"late":false}'], "the other stream")
    until(lambda: gateway.metric("store_refusing", stream="usage") == 1, "the refusal to be told")
    (reason,) = gateway.get("/ready").json()["degraded"]
    assert reason.startswith("usage:")
    assert late in reason or "NoSuchBucket" in reason
    buckets.client.make_bucket(late)
    try:
        until(lambda: buckets.lines(late) == [b'{"late":true}'], "the held report")
        until(lambda: gateway.metric("store_refusing", stream="usage") == 0, "the refusal to be over")
        assert gateway.stop() == 0
    finally:
        buckets.remove_bucket(late)


def test_stop_while_the_store_is_away(own_minio: MinioProcess, own_buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A stop without a store ends within the drain timeout with exit 3, and the next start delivers what was left."""
    gateway = make_gateway(settings_for(own_buckets, shutdown={"drain_timeout": "2s"}, aggregation={"usage_interval": "1h"}))
    gateway.start()
    own_minio.stop()
    assert gateway.put("/usage", b'{"left":"a report"}') == 204
    assert gateway.put("/specimen?uri=left.txt", b"a specimen") == 204
    began = time.monotonic()
    # Twice the drain timeout, where an endless drain would take five minutes.
    assert gateway.stop(4) == 3
    assert time.monotonic() - began >= 2, "it gave up before its time"
    (stopped,) = gateway.events("stopped")
    assert stopped["waiting_files"] == 2
    assert len(gateway.left()) == 3

    own_minio.start()
    gateway.start()
    until(lambda: gateway.left() == [], "the rest to be delivered")
    assert own_buckets.lines(own_buckets.usage) == [b'{"left":"a report"}']
    assert [one.body for one in files(own_buckets, own_buckets.specimen)] == [b"a specimen"]
    assert gateway.stop() == 0
