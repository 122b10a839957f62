"""A body as it comes, seen from the client of a real gateway: slow ones keep nobody out, and end."""

from __future__ import annotations

import os
import select
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.intake.body import PIECE_BYTES
from gateway.web.bulk_body import LARGE_BYTES
from testkit.deadlines import until
from testkit.running import LocalGateway, Wire, head, put, running

# Less than what the slow ones send.
PENDING = 4 << 20
SLOW = 24
FILLERS = 20
NEWCOMER = b'"%b"' % (b"n" * (200 << 10))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """Run one gateway with little memory for many tests."""
    settings: dict[str, Any] = {"limits": {"pending_bytes": PENDING}}
    with running(tmp_path_factory.mktemp("gateway"), settings) as started:
        yield started
        assert started.events("defect") == []
        assert started.stop(60.0) in (0, 3)


def slow_request(kind: str, number: int) -> tuple[bytes, bytes, bytes]:
    """The head of a request, most of its body, and the rest of that."""
    if kind == "report":
        body = b'"%06d%b"' % (number, b"r" * ((250 << 10) - 8))
        return head("PUT /usage", f"Content-Length: {len(body)}"), body[:-1], body[-1:]
    if kind == "chunks":
        body = b"%06d" % number + os.urandom(PIECE_BYTES - 100)
        start = head(f"PUT /specimen?uri={kind}-{number}", "Transfer-Encoding: chunked")
        return start + b"%x\r\n" % len(body), body[:-1], body[-1:] + b"\r\n0\r\n\r\n"
    body = b"%06d" % number + os.urandom(LARGE_BYTES)
    return (
        head(f"PUT /specimen?uri={kind}-{number}", f"Content-Length: {len(body)}"),
        body[: PIECE_BYTES - 50],
        body[PIECE_BYTES - 50 :],
    )


@pytest.mark.parametrize("kind", ["report", "chunks", "large"])
def test_slow_clients_keep_nobody_out(kind: str, gateway: LocalGateway) -> None:
    """Clients that send most of a body and then wait have it written, so that others are let in; it is kept when they go on."""
    requests = [slow_request(kind, number) for number in range(SLOW)]
    with ExitStack() as stack:
        wires: list[Wire] = []
        for start, most, _ in requests:
            client = stack.enter_context(gateway.wire())
            client.send(start + most)
            wires.append(client)
        # What is left between them is taken too.
        for _ in range(FILLERS):
            stack.enter_context(gateway.wire()).send(head("PUT /usage", "Content-Length: 20000") + b'"' + b"f" * 19_998)
        taken = until(lambda: gateway.put("/usage", NEWCOMER) == 204, "a newcomer to be let in, though more is held than fits")
        assert taken
        assert gateway.get("/ready").status == 200
        answers = []
        for client, (_, _, rest) in zip(wires, requests, strict=True):
            answers.append(answer_to(client, rest))
    # Whoever came to a memory that was taken has been sent away with its first bytes; how many is chance.
    assert set(answers) <= {204, 503, 0}
    kept = [zlib.crc32(body) for body in (gateway.kept("usage") if kind == "report" else bodies_of(gateway))]
    for (_, most, rest), status in zip(requests, answers, strict=True):
        body = most + (rest.removesuffix(b"\r\n0\r\n\r\n") if kind == "chunks" else rest)
        assert kept.count(zlib.crc32(body)) == (status == 204)


def answer_to(client: Wire, rest: bytes) -> int:
    """The status that a client gets after the rest of its body; 0 where its connection was closed before."""
    try:
        client.send(rest)
        return client.answer().status
    except ConnectionError:
        return 0


def bodies_of(gateway: LocalGateway) -> list[bytes]:
    """Every specimen that was delivered."""
    until(lambda: not list((gateway.cache / "specimen").glob("*.body")), "the specimens to be delivered")
    return [path.read_bytes() for path in (gateway.objects / "specimen").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("/usage", "Content-Length: 100000"),
        ("/usage", "Transfer-Encoding: chunked"),
        ("/specimen?uri=a", f"Content-Length: {2 * LARGE_BYTES}"),
    ],
)
def test_a_body_that_is_too_slow_ends(path: str, length: str, tmp_path: Path) -> None:
    """A client that is never silent and slower than the least rate gets 408 with the key, and others are answered meanwhile."""
    settings: dict[str, Any] = {"limits": {"body_timeout": "3s", "body_min_rate": "1MiB"}}
    with running(tmp_path, settings) as gateway, gateway.wire() as client:
        client.send(head(f"PUT {path}", length) + (b"10000\r\n" if "chunked" in length else b"") + b'"')
        # A byte is sent whenever nothing was answered for a moment, and the end has to come without a pause in them.
        until(lambda: is_answered_or_goes_on(client), "the answer")
        answer = client.answer()
        assert answer.status == 408
        assert "limits.body_min_rate" in answer.json()["error"]["message"]
        with gateway.wire() as other:
            assert other.ask(put("/usage", b"1")).status == 204
        assert not list((gateway.cache / "tmp").iterdir())


def is_answered_or_goes_on(client: Wire) -> bool:
    """Whether something was answered; if not, one more byte is sent."""
    if select.select([client.socket], [], [], 0.05)[0]:
        return True
    client.send(b"x")
    return False
