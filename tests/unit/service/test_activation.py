"""Sockets that another program holds: used in place of own ones, left open at the end, and no restart refuses anybody."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.core.errors import StartError
from gateway.service.activation import inherited_sockets
from testkit.deadlines import until
from testkit.running import WAIT_S, Wire, head, put
from testkit.started import Started

CONNECTIONS = 8
WORKERS = pytest.mark.parametrize("workers", [1, 2])


def passing(*sockets: socket.socket, pid: str = "os.getpid()", names: str = "web") -> str:
    """The statements by which these sockets are passed as systemd does it; they become descriptors 3 and following."""
    numbers = [each.fileno() for each in sockets]
    return f"""
# Above all numbers that are written to next.
high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in {numbers}]
for at, number in enumerate(high):
    os.dup2(number, 3 + at, inheritable=True)
    os.set_inheritable(number, False)
os.environ |= {{"LISTEN_PID": str({pid}), "LISTEN_FDS": "{len(numbers)}", "LISTEN_FDNAMES": "{names}"}}
"""


def activated(folder: Path, *sockets: socket.socket, workers: int = 1, pid: str = "os.getpid()") -> Started:
    """A gateway that gets these sockets and no port."""
    settings = {"server": {"workers": workers}}
    numbers = [each.fileno() for each in sockets]
    return Started(folder, passing(*sockets, pid=pid), settings, pass_fds=numbers, port=None)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A socket of another program's, which blocks as one of systemd's does."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def ask(address: tuple[str, int], data: bytes) -> int:
    """Send a request on a connection of its own and return the status."""
    with socket.create_connection(address, WAIT_S) as connection:
        return Wire(connection).ask(data).status


# --- a gateway ---------------------------------------------------------------------------------------------------


@WORKERS
def test_it_listens_where_it_was_told(tmp_path: Path, workers: int) -> None:
    """Without -p the sockets that were passed are listened at, all of them by every worker, and nothing else."""
    with listening() as first, socket.create_server(("::1", 0), family=socket.AF_INET6) as second:
        gateway = activated(tmp_path, first, second, workers=workers)
        try:
            gateway.start()
            ports = [each.getsockname()[1] for each in (first, second)]
            assert gateway.addresses == [f"http://127.0.0.1:{ports[0]}", f"http://[::1]:{ports[1]}"]
            assert {line["socket"] for line in gateway.events("listening")} == {"inherited"}
            for address in (first.getsockname()[:2], second.getsockname()[:2]):
                assert ask(address, put("/usage", b"1")) == 204
            assert gateway.stop() == 0
        finally:
            gateway.kill()


@WORKERS
def test_nothing_that_it_starts_sees_the_variables(tmp_path: Path, workers: int) -> None:
    """Neither a worker nor another child process gets the variables by which sockets are passed."""
    with listening() as held:
        gateway = activated(tmp_path, held, workers=workers)
        try:
            gateway.start()
            for line in gateway.events("worker started"):
                assert b"LISTEN_" not in Path(f"/proc/{line['pid']}/environ").read_bytes()
            assert len(gateway.events("worker started")) == (workers if workers > 1 else 0)
            assert gateway.stop() == 0
        finally:
            gateway.kill()


def test_variables_for_another_process_do_not_matter(tmp_path: Path) -> None:
    """Where `LISTEN_PID` is another's, the gateway wants a port of its own."""
    with listening() as held:
        gateway = activated(tmp_path, held, pid="os.getppid()")
        gateway.launch()
        assert gateway.wait() == 2
        assert "-p PORT is required" in gateway.said()


def test_a_unix_socket_that_was_passed_stays(tmp_path: Path) -> None:
    """A Unix socket can be passed as well, and its file is there after the end."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
        held.bind(str(path))
        held.listen()
        gateway = activated(tmp_path, held)
        try:
            gateway.launch()
            until(lambda: gateway.events("listening"), "the start")
            assert gateway.addresses == [f"unix:{path}"]
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(WAIT_S)
                client.connect(str(path))
                assert Wire(client).ask(put("/usage", b"1")).status == 204
            assert gateway.stop() == 0
        finally:
            gateway.kill()
        assert path.is_socket()


@WORKERS
def test_a_dead_worker_is_replaced_at_the_same_socket(tmp_path: Path, workers: int) -> None:
    """After the death of a worker, or of the gateway, the next one accepts from the socket that was passed."""
    with listening() as held:
        gateway = activated(tmp_path, held, workers=workers)
        try:
            gateway.start()
            for line in gateway.events("worker started"):
                os.kill(line["pid"], signal.SIGKILL)
            if workers > 1:
                until(lambda: len(gateway.events("worker started")) == 2 * workers, "the replacements")
            assert ask(held.getsockname(), put("/usage", b"1")) == 204
            gateway.kill()
            gateway.start()
            assert ask(held.getsockname(), put("/usage", b"2")) == 204
            assert gateway.stop() == 0
        finally:
            gateway.kill()


class Load:
    """Clients that open a connection for each request, as fast as they are answered.

    Attributes:
        answered: the number of each report that got 204.
        failed: what else became of one.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.answered: list[int] = []
        self.failed: list[str] = []
        self._address = address
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,)) for at in range(CONNECTIONS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Return once so many more were answered, or one was not."""
        wanted = len(self.answered) + count
        until(lambda: len(self.answered) >= wanted or self.failed, "the answers")

    def _run(self, number: int) -> None:
        while not self._over.is_set():
            try:
                status = ask(self._address, put("/usage", b'{"n":%d}' % number))
            except (OSError, AssertionError) as error:
                self.failed.append(f"{number}: {error!r}")
            else:
                if status == 204:
                    self.answered.append(number)
                else:
                    self.failed.append(f"{number}: {status}")
            number += CONNECTIONS


@WORKERS
def test_a_restart_under_load_refuses_nobody(tmp_path: Path, workers: int) -> None:
    """Restarted twice under load, no connection is refused or cut, every request is answered 204, and arrives once."""
    with listening() as held:
        gateway = activated(tmp_path, held, workers=workers)
        try:
            gateway.start()
            with Load(held.getsockname()) as load:
                for _ in range(2):
                    load.more(200)
                    assert gateway.stop() == 0
                    gateway.start()
                load.more(200)
            assert load.failed == []
            assert gateway.stop() == 0
        finally:
            gateway.kill()
        assert sorted(gateway.delivered("usage")) == sorted(b'{"n":%d}' % number for number in load.answered)


def test_who_was_accepted_is_answered(tmp_path: Path) -> None:
    """A connection that was accepted before the stop and sends its request after it is answered as at any other time."""
    with listening() as held:
        gateway = activated(tmp_path, held)
        try:
            gateway.start()
            with socket.create_connection(held.getsockname(), WAIT_S) as early:
                # The one after it is answered, so it was accepted as well.
                assert ask(held.getsockname(), head("GET /health", user=None)) == 200
                gateway.signal(signal.SIGTERM)
                until(lambda: gateway.events("stopping begun"), "the stop")
                assert Wire(early).ask(put("/usage", b"1")).status == 204
            assert gateway.wait() == 0
        finally:
            gateway.kill()
        assert gateway.delivered("usage") == [b"1"]


def test_who_says_nothing_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """A connection on which nothing comes is closed in the end."""
    with listening() as held:
        gateway = activated(tmp_path, held)
        try:
            gateway.start()
            with socket.create_connection(held.getsockname(), WAIT_S) as silent:
                assert ask(held.getsockname(), head("GET /health", user=None)) == 200
                assert gateway.stop() == 0
                assert Wire(silent).closed()
        finally:
            gateway.kill()


# --- what was passed ---------------------------------------------------------------------------------------------


def variables(**found: str) -> dict[str, str]:
    """An environment with what systemd sets."""
    return {"LISTEN_PID": "7", "LISTEN_FDS": "0", "PATH": "/bin", **found}


@pytest.mark.parametrize(
    "environ",
    [
        {"PATH": "/bin"},
        variables(LISTEN_PID="8", LISTEN_FDS="1"),
        variables(LISTEN_PID="", LISTEN_FDS="1"),
        variables(),
        {"PATH": "/bin", "LISTEN_FDS": "1"},
        {"PATH": "/bin", "LISTEN_PID": "7", "LISTEN_FDNAMES": "a:b"},
    ],
)
def test_without_all_of_it_nothing_was_passed(environ: dict[str, str]) -> None:
    """Variables that are missing or for another process pass nothing, and none of them stays."""
    assert inherited_sockets(environ, 7) == []
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("count", ["-1", "one", "", "1.0", "\u0661"])
def test_a_number_that_is_none(count: str) -> None:
    """`LISTEN_FDS` that is no number is told with what to do."""
    with pytest.raises(StartError, match=r"LISTEN_FDS is .*ListenStream="):
        inherited_sockets(variables(LISTEN_FDS=count), 7)


def opened(kind: str) -> int:
    """Open something that is no listening stream socket, and return its descriptor."""
    if kind == "file":
        return os.open(os.devnull, os.O_RDONLY)
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
    return made.detach()


@pytest.mark.parametrize(
    ("kind", "told"), [("file", "no socket"), ("datagram", "no listening stream"), ("not listening", "no listening stream")]
)
def test_what_cannot_be_listened_at(tmp_path: Path, kind: str, told: str) -> None:
    """What was passed and is no listening stream socket is told with its number and what to do, and ends the start with 1."""
    number = opened(kind)
    before = f"os.dup2({number}, 3, inheritable=True); os.environ |= {{'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}}"
    try:
        gateway = Started(tmp_path, before, pass_fds=[number], port=None)
        gateway.launch()
        assert gateway.wait() == 1
    finally:
        os.close(number)
    (line,) = gateway.said().splitlines()
    assert "descriptor 3 of LISTEN_FDS" in line
    assert told in line
    assert "ListenStream=" in line
