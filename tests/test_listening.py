"""Sockets to listen at: one for each process, at every address, and never where somebody else listens."""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from integration.minio import free_port

from gateway.errors import StartError
from gateway.listening import listen_again, listening_sockets

HOST = "127.0.0.1"
CONNECTIONS = 200
WAIT_S = 10.0


@contextmanager
def listening(host: str, port: int, count: int) -> Iterator[list[list[socket.socket]]]:
    """Listen within this block."""
    with ExitStack() as stack:
        made = listening_sockets(host, port, count)
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
            listening_sockets(HOST, port, second)
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
            listening_sockets("localhost", port, 2)
        for address in addresses[:-1]:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, port), WAIT_S)


def test_a_name_that_nobody_knows() -> None:
    """A host that cannot be found is an error that names it and the settings."""
    with pytest.raises(StartError, match=r"name\.invalid.*listen\.host"):
        listening_sockets("name.invalid", 0, 2)


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
