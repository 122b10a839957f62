"""A machine that was suspended: what had come meanwhile is read before a timer counts that ran out in that time."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from testkit.deadlines import until
from testkit.running import LocalGateway

# So long it stands still; the timers are shorter.
STILL_S = 2.3
HEAD = b"PUT /usage HTTP/1.1\r\nHost: g\r\nUSER_TOKEN: alice\r\nContent-Length: %d\r\n\r\n"
TIMEOUTS = {"LIGHTFILE6_LIMITS_KEEPALIVE_TIMEOUT": "1s", "LIGHTFILE6_LIMITS_BODY_TIMEOUT": "300ms"}


@pytest.fixture(params=["true", "false"], ids=["fast lane", "ordinary lane"])
def gateway(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[LocalGateway]:
    """Run one whose clients have less than a second."""
    made = LocalGateway(tmp_path, environment={**TIMEOUTS, "LIGHTFILE6_LISTEN_FAST_LANE": request.param})
    made.start()
    yield made
    assert made.stop(60) == 0


@contextmanager
def suspended(gateway: LocalGateway) -> Iterator[None]:
    """Have the gateway stand still, from before this block until long after it."""
    gateway.signal(signal.SIGSTOP)
    try:
        yield
        time.sleep(STILL_S)
    finally:
        gateway.signal(signal.SIGCONT)


def connected(gateway: LocalGateway) -> socket.socket:
    """A connection on which a request was answered already."""
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
    connection.sendall(HEAD % 2 + b"10")
    assert connection.recv(1 << 16).startswith(b"HTTP/1.1 204")
    return connection


def test_a_request_on_an_idle_connection_is_answered(gateway: LocalGateway) -> None:
    """It had come in time, and the connection is not reset."""
    with connected(gateway) as connection:
        with suspended(gateway):
            connection.sendall(HEAD % 2 + b"11")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 204")


@pytest.mark.parametrize("size", [200, 3_000_000])
def test_a_body_goes_on_where_it_was(gateway: LocalGateway, size: int) -> None:
    """Its time stood still with the machine, also where it has to come at a least rate."""
    body = b'"%s"' % (b"x" * (size - 2))
    with connected(gateway) as connection:
        connection.sendall(HEAD % size + body[: size // 2])
        time.sleep(0.1)
        with suspended(gateway):
            # No more than a connection holds.
            connection.sendall(body[size // 2 : size // 2 + 50_000])
        connection.sendall(body[size // 2 + 50_000 :])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 204")


def test_who_reads_meanwhile_is_not_given_up(gateway: LocalGateway) -> None:
    """A client that could read no more, because nothing was given to it, reads on afterwards."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        asked = 2000
        # Each answer is larger than its request, and what waits to be read more than the kernel holds.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: g\r\n\r\n" * asked)
        time.sleep(0.2)
        read = 0
        with suspended(gateway):
            connection.settimeout(0.3)
            with suppress(TimeoutError):
                while found := connection.recv(1 << 20):
                    read += found.count(b"HTTP/1.1 200 ")
        connection.settimeout(20)
        while read < asked:
            found = connection.recv(1 << 20)
            assert found, f"ended after {read} answers"
            read += found.count(b"HTTP/1.1 200 ")


def test_who_is_silent_is_still_given_up(gateway: LocalGateway) -> None:
    """The timers run on afterwards."""
    with connected(gateway) as connection:
        connection.sendall(HEAD % 200 + b'"x')
        with suspended(gateway):
            connection.sendall(b"x")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408")
    with connected(gateway) as connection:
        with suspended(gateway):
            pass
        assert connection.recv(1 << 16) == b""
    until(lambda: gateway.get("/health").status == 200, "it to be well")
