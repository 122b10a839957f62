"""Sockets to listen at: one for each process, at every address, and never where somebody else listens."""

from __future__ import annotations

import errno
import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import ListenKeys
from gateway.core.errors import StartError
from gateway.service.sockets import Listeners, listen_again, listening_sockets, open_listeners
from testkit.servers.process import free_port

HOST = "127.0.0.1"
CONNECTIONS = 200
WAIT_S = 10.0


@contextmanager
def listening(host: str, port: int, count: int) -> Iterator[list[list[socket.socket]]]:
    """ListenKeys within this block."""
    with ExitStack() as stack:
        made = listening_sockets([host], port, count)
        for sockets in made:
            for each in sockets:
                stack.enter_context(each)
        yield made


def port_of(made: list[list[socket.socket]]) -> int:
    """The port, which has to be the same everywhere."""
    (port,) = {each.getsockname()[1] for sockets in made for each in sockets}
    assert isinstance(port, int)
    return port


def accepted_by(sockets: list[socket.socket], connections: int) -> Counter[int]:
    """How many of so many connections wait at each of the sockets."""
    found: Counter[int] = Counter()
    while found.total() < connections:
        ready, _, _ = select.select(sockets, [], [], WAIT_S)
        assert ready, f"only {found.total()} connections came"
        for each in ready:
            each.accept()[0].close()
            found[sockets.index(each)] += 1
    return found


def test_connections_are_spread() -> None:
    """Of many connections each process gets its share, at one port that was free."""
    with listening(HOST, 0, 3) as made, ExitStack() as stack:
        port = port_of(made)
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection((HOST, port), WAIT_S))
        found = accepted_by([sockets[0] for sockets in made], CONNECTIONS)
        # Half of an even share is eight standard deviations away from it.
        assert min(found[at] for at in range(3)) > CONNECTIONS / 6


def test_what_waits_at_a_socket_is_kept() -> None:
    """Connections wait at a socket that nobody accepts from, and are there for whoever comes."""
    with listening(HOST, 0, 1) as made, socket.create_connection((HOST, port_of(made)), WAIT_S) as client:
        client.sendall(b"hello")
        select.select(made[0], [], [], WAIT_S)
        with made[0][0].accept()[0] as server:
            server.settimeout(WAIT_S)
            assert server.recv(5) == b"hello"


def test_every_address_of_a_name() -> None:
    """A name with several addresses gets a socket for each of them and each process, all at one port."""
    found = {address[0] for *_, address in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)}
    with listening("localhost", 0, 2) as made:
        assert [{each.getsockname()[0] for each in sockets} for sockets in made] == [found, found]
        for address in found:
            socket.create_connection((str(address), port_of(made)), WAIT_S).close()


def test_an_empty_port_is_taken_as_given() -> None:
    """A port that is asked for is the one that is listened at."""
    port = free_port()
    with listening(HOST, port, 2) as made:
        assert port_of(made) == port


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("second", [1, 2])
def test_a_port_is_one_gateway_s(first: int, second: int) -> None:
    """Where another gateway listens, with one process or several, nobody else may; when it is gone they may."""
    with listening(HOST, 0, first) as made:
        port = port_of(made)
        with pytest.raises(StartError, match=f"port {port} on {HOST} is in use"):
            listening_sockets([HOST], port, second)
        # What was in vain has left nothing behind that would take connections.
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection((HOST, port), WAIT_S))
            assert accepted_by([sockets[0] for sockets in made], 20).total() == 20
    with listening(HOST, port, second) as again:
        assert port_of(again) == port


def test_a_port_that_something_else_has_on_one_address_only() -> None:
    """If one of the addresses is taken, none is listened at."""
    addresses = sorted({str(address[0]) for *_, address in socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)})
    family = socket.AF_INET6 if ":" in addresses[-1] else socket.AF_INET
    with socket.create_server((addresses[-1], 0), family=family) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match="is in use"):
            listening_sockets(["localhost"], port, 2)
        for address in addresses[:-1]:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, port), WAIT_S)


def test_a_name_that_nobody_knows() -> None:
    """A host that cannot be found is an error that names it and the settings."""
    with pytest.raises(StartError, match=r"name\.invalid.*listen\.host"):
        listening_sockets(["name.invalid"], 0, 2)


def test_a_place_can_be_taken_again() -> None:
    """One process's sockets closed and opened again have their share of the connections, at the same addresses."""
    with listening("localhost", 0, 2) as made:
        addresses = [(each.family, each.getsockname()) for each in made[0]]
        for each in made[0]:
            each.close()
        with ExitStack() as stack:
            again = [stack.enter_context(each) for each in listen_again(addresses)]
            assert [(each.family, each.getsockname()) for each in again] == addresses
            host, port = again[0].getsockname()[:2]
            for _ in range(CONNECTIONS):
                stack.enter_context(socket.create_connection((host, port), WAIT_S))
            assert accepted_by([again[0], made[1][0]], CONNECTIONS)[0] > CONNECTIONS / 4


def test_a_place_that_somebody_else_has_taken() -> None:
    """Where another program listens by now the place cannot be taken again, and nothing stays open."""
    with listening(HOST, 0, 1) as made:
        address = made[0][0].getsockname()
        free = (socket.AF_INET, (HOST, free_port()))
        with pytest.raises(OSError, match="in use"):
            listen_again([free, (socket.AF_INET, address)])
        socket.create_server(free[1]).close()


# --- families and lists ------------------------------------------------------------------------------------------


def hosts(made: list[list[socket.socket]]) -> list[str]:
    """The addresses of the first process."""
    return [each.getsockname()[0] for each in made[0]]


@contextmanager
def listening_on(*given: str, port: int = 0, count: int = 1) -> Iterator[list[list[socket.socket]]]:
    """ListenKeys at these hosts within this block."""
    with closing(Listeners(listening_sockets(given, port, count), [])) as listeners:
        yield listeners.own


def without(monkeypatch: pytest.MonkeyPatch, missing: int, number: int, *, at: str) -> None:
    """Have a machine without a family of addresses: its sockets cannot be made, or bound."""

    class Missing(socket.socket):
        def __init__(self, family: int = -1, *given: Any, **named: Any) -> None:
            if at == "made" and family == missing:
                raise OSError(number, "not here")
            super().__init__(family, *given, **named)

        def bind(self, address: Any) -> None:
            if at == "bound" and self.family == missing:
                raise OSError(number, "not here")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Missing)


@pytest.mark.parametrize("count", [1, 3])
def test_without_a_host_both_families_are_served(count: int) -> None:
    """By default every address of both families is listened at, at one port, and either is answered by every process."""
    with listening_on(count=count) as made:
        assert hosts(made) == ["::", "0.0.0.0"]
        for address in ("::1", "127.0.0.1"):
            socket.create_connection((address, port_of(made)), WAIT_S).close()


@pytest.mark.parametrize(("missing", "left"), [(socket.AF_INET6, "0.0.0.0"), (socket.AF_INET, "::")])
@pytest.mark.parametrize(("number", "at"), [(errno.EAFNOSUPPORT, "made"), (errno.EADDRNOTAVAIL, "bound")])
def test_a_machine_with_one_family(missing: int, left: str, number: int, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one of the families is not there, the other is listened at by default, and that is no error."""
    without(monkeypatch, missing, number, at=at)
    with listening_on(count=2) as made:
        assert hosts(made) == [left]


def test_a_family_that_was_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that was given and is of a family that is not there is an error that names it, and nothing stays open."""
    without(monkeypatch, socket.AF_INET6, errno.EAFNOSUPPORT, at="made")
    port = free_port()
    with pytest.raises(StartError, match=rf"\[::1\]:{port}.*listen\.host"):
        listening_sockets([HOST, "::1"], port, 2)
    socket.create_server((HOST, port)).close()


def test_several_hosts() -> None:
    """A list of hosts is listened at, each address once, all at one port."""
    with listening_on(HOST, "::1", "localhost", HOST, count=2) as made:
        assert sorted(hosts(made)) == [HOST, "::1"]
        assert port_of(made) > 0


def test_an_address_for_all_has_the_others_in_it() -> None:
    """Beside an address for all of a family the others of that family are not listened at once more."""
    with listening_on(HOST, "0.0.0.0", "::1") as made:
        assert hosts(made) == ["0.0.0.0", "::1"]


@pytest.mark.parametrize(("taken", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_that_is_taken_in_one_family(taken: str, family: int) -> None:
    """The error names the address whose port is in use, and the other family is left alone."""
    named = {"127.0.0.1": r"0\.0\.0\.0", "::1": r"\[::\]"}[taken]
    with socket.create_server((taken, 0), family=family) as server:
        port = server.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} on {named} is in use"):
            listening_sockets([], port, 1)
    with listening_on(port=port) as made:
        assert port_of(made) == port


def test_a_free_port_is_free_in_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the port that one family gives is taken in the other, another one is tried."""
    ports: list[int] = []

    class Once(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET:
                ports.append(address[1])
                if len(ports) == 1:
                    raise OSError(errno.EADDRINUSE, "Address already in use")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Once)
    with listening_on() as made:
        assert hosts(made) == ["::", "0.0.0.0"]


def test_an_address_that_this_machine_has_not() -> None:
    """An address of another machine is an error that names it."""
    with pytest.raises(StartError, match=r"192\.0\.2\.1:8080: this machine has no such address.*listen\.host"):
        listening_sockets([HOST, "192.0.2.1"], 8080, 1)


@pytest.mark.parametrize("name", ["name.invalid", "a" * 64 + ".x", "x..y"])
def test_a_name_that_is_none(name: str) -> None:
    """A name that cannot be looked up is an error and no traceback."""
    with pytest.raises(StartError, match=r"listen\.host"):
        listening_sockets([name], 8080, 1)


def test_addresses_are_told_as_urls(tmp_path: Path) -> None:
    """Each address is told as a URL, in which an IPv6 address has brackets."""
    path = tmp_path / "g.sock"
    with closing(open_listeners(ListenKeys(unix=path), 0, 2)) as listeners:
        port = listeners.port()
        assert listeners.urls("https") == [f"https://[::]:{port}", f"https://0.0.0.0:{port}", f"unix:{path}"]
        assert [each.family for each in listeners.shared] == [socket.AF_UNIX]
    assert not path.exists()


def test_no_port_but_a_unix_socket(tmp_path: Path) -> None:
    """Without a port nothing but the Unix socket is listened at."""
    with closing(open_listeners(ListenKeys(unix=tmp_path / "g.sock"), None, 1)) as listeners:
        assert (listeners.own, listeners.port()) == ([[]], 0)


def test_what_is_in_vain_leaves_nothing(tmp_path: Path) -> None:
    """Where the Unix socket cannot be listened at, the port is free again."""
    port = free_port()
    with pytest.raises(StartError, match=r"listen\.unix"):
        open_listeners(ListenKeys(unix=tmp_path / "none" / "g.sock"), port, 2)
    with listening_on(port=port) as made:
        assert port_of(made) == port


def test_inherited_sockets_are_used_instead(tmp_path: Path) -> None:
    """Where sockets were passed, neither the port nor the Unix socket is listened at."""
    with socket.create_server((HOST, 0)) as held:
        listeners = open_listeners(ListenKeys(unix=tmp_path / "g.sock"), 0, 3, [held])
        assert (listeners.own, listeners.shared, listeners.is_inherited) == ([[], [], []], [held], True)
        assert [listeners.of(process) for process in range(3)] == [[held]] * 3
    assert list(tmp_path.iterdir()) == []
