"""The healthcheck asks where the gateway listens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.cli import healthcheck as room
from gateway.cli.healthcheck import healthcheck
from testkit.certificates import files
from testkit.gateway_process import Gateway
from testkit.running import running
from testkit.servers.process import free_port


def asks(folder: Path, *arguments: str, **environment: str) -> int:
    """The exit code of a healthcheck that knows nothing but this."""
    return Gateway(folder, {}, environment).run("healthcheck", *arguments).returncode


@pytest.mark.parametrize(
    "host", [None, "127.0.0.1", "::1", "0.0.0.0", "::", "localhost", ["::1", "127.0.0.1"]], ids=lambda host: str(host)
)
@pytest.mark.parametrize("source", ["file", "environment", "flag"])
def test_it_asks_where_it_is_listened(tmp_path: Path, host: str | list[str] | None, source: str) -> None:
    """Wherever a gateway listens, its healthcheck finds it with the same configuration."""
    with running(tmp_path, {"listen": {"host": host}}) as gateway:
        port = str(gateway.port)
        if source == "file":
            code = asks(tmp_path, "-p", port, "-c", str(tmp_path / "config.yml"))
        elif source == "environment":
            given = ",".join(host) if isinstance(host, list) else host or ""
            code = asks(tmp_path, PORT=port, LIGHTFILE6_LISTEN_HOST=given)
        else:
            given = host[0] if isinstance(host, list) else host or ""
            code = asks(tmp_path, "-p", port, "--host", given)
        assert code == 0


def test_it_asks_nobody_else(tmp_path: Path) -> None:
    """A gateway on another address of the same port is not the one that is asked."""
    with running(tmp_path, {"listen": {"host": "127.0.0.1"}}) as gateway:
        port = str(gateway.port)
        assert asks(tmp_path, "-p", port, LIGHTFILE6_LISTEN_HOST="127.0.0.2") == 1
        assert asks(tmp_path, "-p", port, LIGHTFILE6_LISTEN_HOST="127.0.0.2,127.0.0.1") == 0
        assert asks(tmp_path, "-p", port, "--host", "127.0.0.1", LIGHTFILE6_LISTEN_HOST="127.0.0.2") == 0


def test_a_unix_socket_is_asked(tmp_path: Path) -> None:
    """A gateway with a Unix socket is asked there, unless a port or a host is named."""
    path = tmp_path / "g.sock"
    with running(tmp_path, {"listen": {"unix": str(path)}}) as gateway:
        config = str(tmp_path / "config.yml")
        assert asks(tmp_path, "--unix", str(path)) == 0
        assert asks(tmp_path, LIGHTFILE6_LISTEN_UNIX=str(path), PORT="1") == 0
        assert asks(tmp_path, "-c", config) == 0
        assert gateway.run("-c", config, "healthcheck").returncode == 0
        assert asks(tmp_path, "-c", config, "-p", str(gateway.port)) == 0
        assert asks(tmp_path, "-c", config, "-p", str(free_port())) == 1
        assert gateway.stop() == 0
        assert asks(tmp_path, "--unix", str(path)) == 1


def test_a_certificate_in_the_file_is_known(tmp_path: Path) -> None:
    """With a certificate in the configuration it is asked by HTTPS."""
    certificate, key = files(tmp_path)
    settings = {"listen": {"host": None, "tls_certificate": str(certificate), "tls_key": str(key)}}
    with running(tmp_path / "gateway", settings) as gateway:
        port, config = str(gateway.port), str(tmp_path / "gateway" / "config.yml")
        assert asks(tmp_path, "-p", port) == 1
        assert asks(tmp_path, "-p", port, "-c", config) == 0
        assert asks(tmp_path, "-p", port, "--tls", "--host", "::1") == 0


def test_the_default_file_is_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without -c it is the file that the gateway reads without -c, if there is one."""
    path = tmp_path / "default.yml"
    monkeypatch.setattr(room, "CONFIG_FILE", str(path))
    for name in ("PORT", "LIGHTFILE6_LISTEN_HOST", "LIGHTFILE6_LISTEN_UNIX"):
        monkeypatch.delenv(name, raising=False)
    with running(tmp_path / "gateway", {"listen": {"unix": str(tmp_path / "g.sock")}}):
        assert healthcheck(["-p", str(free_port())]) == 1
        path.write_text(f"listen: {{unix: {tmp_path / 'g.sock'}}}")
        assert healthcheck([]) == 0


@pytest.mark.parametrize("content", ["listen: [", "listen: 5", "5", "", "listen: {host: {}}", "listen:"])
def test_a_file_that_makes_no_sense_is_no_traceback(content: str, tmp_path: Path) -> None:
    """Whatever stands in the file, it is not healthy and says so in a line."""
    (tmp_path / "config.yml").write_text(content)
    done = Gateway(tmp_path, {}).run("healthcheck", "-p", str(free_port()), "-c", str(tmp_path / "config.yml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("not healthy: ")
    assert len(done.stderr.splitlines()) == 1
    assert Gateway(tmp_path, {}).run("healthcheck", "-c", str(tmp_path / "none.yml")).returncode == 1


@pytest.mark.parametrize(
    ("host", "field"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("fe80::1%lo", "[fe80::1]")]
)
def test_the_field_host_is_valid(host: str, field: str) -> None:
    """An IPv6 address has brackets in the field Host, and no zone."""
    assert room._field(host) == field


def test_it_stays_light(tmp_path: Path) -> None:
    """Nothing of the gateway's libraries is imported to ask, and YAML only where there is a file."""
    statements = (
        "import sys; from gateway.cli.healthcheck import healthcheck; healthcheck(['-p', '1']); "
        "print(sorted({'aiohttp', 'uvloop', 'yaml', 'asyncio', 'ssl', 'gateway.config.schema'} & set(sys.modules)))"
    )
    environment: Mapping[str, str] = {"PATH": "/bin"}
    done = subprocess.run(
        [sys.executable, "-c", statements], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
