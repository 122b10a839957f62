"""Delivery through a real forward proxy, which no store is in the habit of expecting."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Gateway, settings_for
from testkit.servers.process import free_port

_CONFIG = """\
Port {port}
Listen 127.0.0.1
Timeout 600
Allow 127.0.0.1
MaxClients 50
LogFile "{log}"
LogLevel Connect
"""


@pytest.fixture
def tinyproxy(tmp_path: Path) -> Iterator[str]:
    """The address of a tinyproxy, which passes no `100 Continue` on."""
    program = shutil.which("tinyproxy")
    if program is None:
        pytest.skip("there is no tinyproxy (Debian: tinyproxy-bin)")
    port = free_port()
    config = tmp_path / "tinyproxy.conf"
    config.write_text(_CONFIG.format(port=port, log=tmp_path / "tinyproxy.log"))
    running = subprocess.Popen([program, "-d", "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _answers(port) or running.poll() is not None, "tinyproxy to listen")
        assert running.poll() is None, "tinyproxy did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(30)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("command", ["start", "check-config"])
def test_a_proxy_that_cannot_be_used_is_refused(buckets: Buckets, tmp_path: Path, command: str) -> None:
    """At the start, and by check-config: exit 2, and a line that names the variable."""
    environment = dict.fromkeys(("HTTP_PROXY", "http_proxy"), "socks5://127.0.0.1:1080") | {"NO_PROXY": "", "no_proxy": ""}
    gateway = Gateway(tmp_path / "gateway", settings_for(buckets), environment)
    if command == "start":
        gateway.launch()
        code, said = gateway.wait(), gateway.said()
    else:
        done = gateway.run("check-config", *gateway.with_config())
        code, said = done.returncode, done.stderr
    assert code == 2
    assert "HTTP_PROXY names a SOCKS proxy" in said
    assert "Traceback" not in said


def test_everything_is_delivered_through_tinyproxy(tinyproxy: str, buckets: Buckets, tmp_path: Path) -> None:
    """Whole objects and parts, whose bodies the proxy never asks for: within seconds."""
    proxied = {"HTTP_PROXY": tinyproxy, "http_proxy": tinyproxy, "NO_PROXY": "", "no_proxy": ""}
    gateway = Gateway(tmp_path / "gateway", settings_for(buckets, s3={"part_size": "5MiB"}), proxied)
    large = bytes(range(256)) * (24 << 10)
    gateway.start()
    try:
        assert gateway.put("/usage", b'{"n":1}') == 204
        assert gateway.put("/specimen?uri=a.bin", large) == 204
        until(lambda: not gateway.left(), "all to be delivered")
        # A connection that it closes in the moment of its use is a failed attempt like any other; a wait for the body is none.
        failed = [line["reason"] for line in gateway.events("delivery failed")]
        assert not any("nothing was taken" in reason for reason in failed)
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    assert buckets.lines(buckets.usage) == [b'{"n":1}']
    assert (tmp_path / "tinyproxy.log").read_text().count("PUT ") >= 4
