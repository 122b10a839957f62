"""The Unix socket of a gateway: who may use it, whom it replaces, and that it goes with its gateway."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.config.values import SOCKET_PATH_BYTES
from gateway.core.errors import StartError
from gateway.service.unix_socket import MODE, listen_at
from testkit.deadlines import until
from testkit.running import WAIT_S, LocalGateway, Wire, chunked, head, put, running
from testkit.started import Started

WORKERS = pytest.mark.parametrize("workers", [1, 2])


@contextmanager
def by_unix(path: Path) -> Iterator[Wire]:
    """A connection by a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(WAIT_S)
        connection.connect(str(path))
        yield Wire(connection)


def settings(path: Path, workers: int = 1) -> dict[str, object]:
    """A gateway that listens there."""
    return {"listen": {"unix": str(path)}, "server": {"workers": workers}}


# --- a gateway ---------------------------------------------------------------------------------------------------


@WORKERS
def test_requests_come_in_by_it(tmp_path: Path, workers: int) -> None:
    """Both lanes answer by the Unix socket as by a port, and both tell the sender as `unix`; at the end the file is gone."""
    path = tmp_path / "g.sock"
    with running(tmp_path / "gateway", settings(path, workers)) as gateway:
        assert [line["address"] for line in gateway.events("listening")][1:] == [f"unix:{path}"]
        with by_unix(path) as client:
            assert client.ask(put("/usage", b"1", "X-Request-ID: fast")).status == 204
            assert client.ask(chunked("/usage", b"2", fields=("X-Request-ID: ordinary",))).status == 204
        with by_unix(path) as client:
            assert client.ask(head("GET /nowhere", "X-Request-ID: error", user=None)).status == 404
        with by_unix(path) as client:
            assert client.ask(b"no HTTP at all\r\n\r\n").status == 400
        assert {gateway.request_line(each)["ip"] for each in ("fast", "ordinary", "error")} == {"unix"}
        until(lambda: len(gateway.events("request failed")) == 2, "the line of what is no request")
        assert {line["ip"] for line in gateway.events("request failed")} == {"unix"}
        assert gateway.put("/usage", b"3") == 204
        assert gateway.stop() == 0
    assert not path.exists()


@WORKERS
def test_it_needs_no_port(tmp_path: Path, workers: int) -> None:
    """With a Unix socket no port has to be given, in the file or in the environment."""
    path = tmp_path / "g.sock"
    gateway = Started(tmp_path / "gateway", "", settings(path, workers), port=None)
    try:
        gateway.launch()
        until(lambda: gateway.events("listening"), "the start")
        with by_unix(path) as client:
            assert client.ask(put("/usage", b"1")).status == 204
        assert gateway.run("healthcheck", "--unix", str(path)).returncode == 0
        assert gateway.stop() == 0
    finally:
        gateway.kill()


@WORKERS
def test_who_was_killed_is_replaced(tmp_path: Path, workers: int) -> None:
    """The file that a killed gateway leaves is replaced by the next start, and that of a living one is not."""
    path = tmp_path / "g.sock"
    with running(tmp_path / "gateway", settings(path, workers)) as gateway:
        gateway.signal(signal.SIGKILL)
        assert gateway.wait() == -signal.SIGKILL
        assert path.is_socket()
        gateway.start()
        other = LocalGateway(tmp_path / "other", settings(path))
        done = other.run("-p", "0", *other.with_config())
        assert (done.returncode, f"listen.unix: {path} is in use" in done.stderr) == (1, True)
        with by_unix(path) as client:
            assert client.ask(put("/usage", b"1")).status == 204
        assert gateway.stop() == 0


def test_a_dead_worker_is_replaced_at_it(tmp_path: Path) -> None:
    """The workers share the socket: it is there while one of them is replaced, and afterwards."""
    path = tmp_path / "g.sock"
    with running(tmp_path / "gateway", settings(path, 2)) as gateway:
        for line in gateway.events("worker started"):
            subprocess.run(["kill", "-KILL", str(line["pid"])], check=True)
        until(lambda: len(gateway.events("worker started")) == 4, "the replacements")
        with by_unix(path) as client:
            assert client.ask(put("/usage", b"1")).status == 204
        assert gateway.stop() == 0
    assert not path.exists()


def test_another_gateway_s_file_is_left_alone(tmp_path: Path) -> None:
    """At its end a gateway removes its own file, and not one that somebody has put there since."""
    path = tmp_path / "g.sock"
    with running(tmp_path / "gateway", settings(path)) as gateway:
        path.unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
            other.bind(str(path))
            assert gateway.stop() == 0
            assert path.is_socket()


# --- the file ----------------------------------------------------------------------------------------------------


def test_who_may_connect(tmp_path: Path) -> None:
    """The owner and the group may connect, and nobody else."""
    made, file = listen_at(tmp_path / "g.sock", 1)
    with made:
        assert file.path.stat().st_mode & 0o777 == MODE == 0o660
    file.remove()
    file.remove()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_stays(tmp_path: Path, kind: str) -> None:
    """Something else with that name is neither replaced nor followed; the error names it."""
    path = tmp_path / "g.sock"
    if kind == "file":
        path.write_text("kept")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=f"listen.unix: {path} is there and is no socket"):
        listen_at(path, 1)
    assert path.is_symlink() or path.exists()


def test_one_whose_queue_is_full_is_alive(tmp_path: Path) -> None:
    """A socket that takes no more connections for now is one that somebody listens at."""
    path = tmp_path / "g.sock"
    made, _ = listen_at(path, 0)
    with made, socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        with pytest.raises(StartError, match="is in use"):
            listen_at(path, 1)
        assert path.is_socket()


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """A directory that is missing is named."""
    with pytest.raises(StartError, match=f"listen.unix: there is no directory {tmp_path}/none"):
        listen_at(tmp_path / "none" / "g.sock", 1)


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """The longest path that the kernel takes can be used, and a longer one is a fault of the configuration."""
    room = SOCKET_PATH_BYTES - len(str(tmp_path)) - 1
    if room > 0:
        made, file = listen_at(tmp_path / ("x" * room), 1)
        made.close()
        file.remove()
    gateway = LocalGateway(tmp_path / "gateway", settings(Path("/" + "x" * SOCKET_PATH_BYTES)))
    done = gateway.run("check-config", *gateway.with_config())
    assert done.returncode == 2
    assert f"listen.unix: is {SOCKET_PATH_BYTES + 1} bytes long" in done.stderr
