from __future__ import annotations

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import STREAMS, MakeGateway, settings_for
from testkit.stored import files

NO_KEYS = {"access_key_id": None, "secret_access_key": None}


def test_wrong_credentials_then_right(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """With wrong credentials everything is received and held as refused; a restart with the right ones delivers it all."""
    gateway = make_gateway(settings_for(buckets, aws={"secret_access_key": "wrong-wrong-wrong"}))
    gateway.start()
    assert gateway.put("/usage", b'{"held":1}') == 204
    assert gateway.put("/error", b'{"held":2}') == 204
    assert gateway.put("/specimen?uri=held.txt", b"held") == 204
    until(lambda: all(gateway.metric("store_refusing", stream=stream) == 1 for stream in STREAMS), "the refusal to be told")
    ready = gateway.get("/ready")
    assert (ready.status, ready.json()["status"]) == (200, "degraded")
    until(lambda: gateway.has_retried("refused", 2), "retries")
    for stream in STREAMS:
        (failed,) = gateway.events("delivery failed", stream=stream)
        assert failed["kind"] == "refused"
    check = gateway.run("check-config", *gateway.with_config())
    assert check.returncode == 2
    assert "s3.usage_bucket" in check.stderr
    assert "wrong-wrong-wrong" not in check.stdout + check.stderr + gateway.said()
    # A refusal is nothing that waiting would mend.
    assert gateway.stop(10) == 3

    gateway.configure(aws={"secret_access_key": buckets.minio.secret_key})
    gateway.start()
    until(lambda: gateway.left() == [], "everything to be delivered")
    assert buckets.lines(buckets.usage) == [b'{"held":1}']
    assert buckets.lines(buckets.error) == [b'{"held":2}']
    assert [one.body for one in files(buckets, buckets.specimen)] == [b"held"]
    assert gateway.metric("store_refusing", stream="usage") == 0
    check = gateway.run("check-config", *gateway.with_config())
    assert (check.returncode, check.stderr) == (0, "")
    assert buckets.minio.secret_key not in check.stdout
    assert gateway.stop() == 0


def test_no_credentials_at_all(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Without any credentials it starts, receives, holds and says so once; only `check-config` calls that an error."""
    gateway = make_gateway(settings_for(buckets, aws=NO_KEYS))
    check = gateway.run("check-config", *gateway.with_config())
    assert check.returncode == 2
    (complaint,) = check.stderr.splitlines()
    assert "no credentials" in complaint

    gateway.start()
    assert gateway.put("/usage", b'{"held":1}') == 204
    assert gateway.put("/specimen?uri=held.txt", b"held") == 204
    until(lambda: gateway.has_retried("refused", 2), "retries")
    assert gateway.get("/ready").status == 200
    for stream in STREAMS:
        (failed,) = gateway.events("delivery failed", stream=stream)
        assert "credentials" in failed["reason"]
    assert gateway.stop(10) == 3

    gateway = make_gateway(
        gateway.settings,
        AWS_ACCESS_KEY_ID=buckets.minio.access_key,
        AWS_SECRET_ACCESS_KEY=buckets.minio.secret_key,
    )
    gateway.start()
    until(lambda: gateway.left() == [], "everything to be delivered with the credentials of the environment")
    assert buckets.lines(buckets.usage) == [b'{"held":1}']
    assert [one.body for one in files(buckets, buckets.specimen)] == [b"held"]
    assert gateway.stop() == 0
