"""Connections are accepted as long as there are descriptors for them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testkit.deadlines import until
from testkit.running import WAIT_S, LocalGateway, head, put

IDLE = 104


@pytest.fixture(params=[1, 2], ids=["one process", "workers"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalGateway]:
    """Run a gateway that may have 64 files open."""
    settings: dict[str, Any] = {"server": {"workers": request.param}}
    started = LocalGateway(tmp_path, settings)
    started.open_files = 64
    try:
        started.start()
        yield started
        assert started.events("defect") == []
        assert started.events("library message") == []
    finally:
        started.kill()


def connect(gateway: LocalGateway, stack: ExitStack, count: int = IDLE) -> list[socket.socket]:
    """So many clients that connect and say nothing."""
    return [stack.enter_context(socket.create_connection(("127.0.0.1", gateway.port), WAIT_S)) for _ in range(count)]


def test_idle_connections_keep_nobody_out(gateway: LocalGateway) -> None:
    """With many more idle connections than files that may be open, reports and specimens of any size are taken with 204."""
    with ExitStack() as stack:
        connect(gateway, stack)
        for size in (10, 100_000, 3_000_000):
            assert gateway.put("/specimen?uri=a", b"s" * size) == 204
            assert gateway.put("/usage", b'"%b"' % (b"u" * min(size, 1_000_000))) == 204
        assert gateway.get("/ready").status == 200
    waited = gateway.events("connections wait")
    assert waited
    assert "ulimit -n is 64" in waited[0]["reason"]
    assert gateway.events("spool failed") == []


def test_busy_connections_are_not_closed_for_others(gateway: LocalGateway) -> None:
    """A client in the middle of a body keeps its connection; the idle ones go, the longest first."""
    with ExitStack() as stack:
        first = stack.enter_context(gateway.wire())
        first.send(head("PUT /usage", "Content-Length: 4") + b"12")
        connect(gateway, stack)
        assert gateway.put("/specimen?uri=a", b"s") == 204
        first.send(b"34")
        assert first.answer().status == 204


def test_connections_that_are_all_busy_are_waited_for(gateway: LocalGateway) -> None:
    """Where no connection is idle a further client waits, and is answered when one ends."""
    with ExitStack() as stack:
        busy = []
        for _ in range(IDLE):
            client = stack.enter_context(gateway.wire())
            client.send(head("PUT /usage", "Content-Length: 4") + b"12")
            busy.append(client)
        until(lambda: gateway.events("connections wait"), "the gateway to be full")
        late = stack.enter_context(gateway.wire())
        late.send(put("/usage", b"1"))
        for client in busy:
            client.send(b"34")
        # Those that waited themselves are let in as others become idle.
        assert [client.answer().status for client in busy] == [204] * IDLE
        assert late.answer().status == 204


def test_the_limit_is_in_the_metrics(gateway: LocalGateway) -> None:
    """How many connections there may be and are can be seen before they are short."""
    workers = gateway.settings["server"]["workers"]
    assert 4 <= gateway.metric("max_connections") < 64 * workers
    with ExitStack() as stack:
        connect(gateway, stack, 3)
        until(lambda: gateway.metric("open_connections") >= 3, "the connections to be counted")
