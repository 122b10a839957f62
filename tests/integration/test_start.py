from __future__ import annotations

import signal
import socket
from pathlib import Path

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import PROGRAM, Gateway, MakeGateway, settings_for


def complaints(gateway: Gateway) -> list[str]:
    """The lines for a person, which stand outside the log."""
    return [line for line in gateway.said().splitlines() if not line.startswith("{")]


def failed_start(gateway: Gateway, port: int = 0) -> str:
    """Start in vain: exit 1 and one line that says why, which is returned."""
    gateway.launch(port)
    assert gateway.wait() == 1, gateway.said()
    (complaint,) = complaints(gateway)
    assert complaint.startswith(f"{PROGRAM}: ")
    return complaint


def test_one_gateway_to_a_spool(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A second gateway on one spool refuses to start, says which process has it, and does the first no harm."""
    first, second = make_gateway(settings_for(buckets)), make_gateway(settings_for(buckets))
    first.start()
    assert first.put("/usage", b'{"n":1}') == 204
    complaint = failed_start(second)
    assert "in use by another gateway" in complaint
    assert str(first.events("gateway starting")[0]["pid"]) in complaint
    assert first.put("/usage", b'{"n":2}') == 204
    assert first.stop() == 0
    assert sorted(buckets.lines(buckets.usage)) == [b'{"n":1}', b'{"n":2}']


def test_a_killed_gateway_locks_nobody_out(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """The lock of a gateway that was killed is free at once."""
    gateway = make_gateway(settings_for(buckets))
    gateway.start()
    gateway.kill()
    gateway.start()
    assert gateway.stop() == 0


def test_port_in_use(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A port that is taken is exit 1 and one line that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        complaint = failed_start(make_gateway(settings_for(buckets)), port)
    assert f"port {port}" in complaint
    assert "in use" in complaint


def test_a_cache_dir_that_cannot_be(buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path) -> None:
    """A cache_dir that cannot be made is exit 1 and one line that says what to set."""
    (tmp_path / "file").write_text("not a directory")
    gateway = make_gateway({**settings_for(buckets), "cache_dir": str(tmp_path / "file" / "spool")})
    assert "LIGHTFILE6_CACHE_DIR" in failed_start(gateway)


def test_a_spool_of_a_newer_gateway(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A spool of a newer version is left alone: exit 1 and one line that says so."""
    gateway = make_gateway(settings_for(buckets))
    gateway.cache.mkdir(parents=True)
    (gateway.cache / "FORMAT").write_text("999\n")
    assert "newer gateway" in failed_start(gateway)
    assert (gateway.cache / "FORMAT").read_text() == "999\n"


def test_every_fault_of_the_configuration(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """All faults of a configuration are told at once, each with its path, with exit 2 and no traceback."""
    gateway = make_gateway(
        settings_for(
            buckets,
            s3={"usage_bucket": None, "eror_prefix": "e/"},
            aggregation={"usage_interval": "ten minutes"},
            limits={"report_bytes": -1},
        ),
        LIGHTFILE6_DELIVERY_PARALLEL_UPLOADS="many",
    )
    gateway.launch()
    assert gateway.wait() == 2
    told = complaints(gateway)
    for fault in (
        "s3.usage_bucket",
        "s3.eror_prefix",
        "aggregation.usage_interval",
        "limits.report_bytes",
        "delivery.parallel_uploads",
    ):
        name = "LIGHTFILE6_DELIVERY_PARALLEL_UPLOADS" if fault.startswith("delivery") else fault
        assert [line for line in told if fault in line or name in line], f"nothing of {fault} in {told}"
    assert "error_prefix" in "".join(told), "the nearest known key is not named"
    assert len(told) == 5
    assert gateway.run("check-config", *gateway.with_config()).returncode == 2


def test_healthcheck_asks_the_running_one(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """The healthcheck of a container succeeds while a gateway answers on the port, and fails afterwards."""
    gateway = make_gateway(settings_for(buckets))
    gateway.start()
    assert gateway.run("healthcheck", "-p", str(gateway.port)).returncode == 0
    assert gateway.stop() == 0
    assert gateway.run("healthcheck", "-p", str(gateway.port)).returncode == 1


def test_interrupt_drains_too(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """SIGINT, as Ctrl-C sends it, drains like SIGTERM."""
    gateway = make_gateway(settings_for(buckets, aggregation={"usage_interval": "1h"}))
    gateway.start()
    assert gateway.put("/usage", b'{"n":1}') == 204
    gateway.signal(signal.SIGINT)
    assert gateway.wait() == 0
    assert buckets.lines(buckets.usage) == [b'{"n":1}']
    until(lambda: gateway.left() == [], "the spool to be empty")
