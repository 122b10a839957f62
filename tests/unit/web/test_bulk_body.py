"""A large plain body, read past the parser: whatever the client does around it, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
import uvloop

from gateway.intake.body import PIECE_BYTES, WIDE_BODIES, WIDE_BODY_BYTES, WIDE_PIECE_BYTES
from gateway.web.bulk_body import LARGE_BYTES, LargeBody
from testkit.deadlines import until
from testkit.running import WAIT_S, LocalGateway, Wire, head, put, running

SIZES = [LARGE_BYTES, LARGE_BYTES + 1, 5 * PIECE_BYTES - 1, WIDE_BODY_BYTES, WIDE_BODY_BYTES + WIDE_PIECE_BYTES // 2]
DATA = os.urandom(max(SIZES))


def settings(**sections: Any) -> dict[str, Any]:
    """Enough room for the bodies of these tests."""
    return {"limits": {"specimen_bytes": 64 << 20, **sections.pop("limits", {})}, **sections}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """Run one gateway for many tests."""
    with running(tmp_path_factory.mktemp("gateway"), settings()) as started:
        yield started
        assert started.events("defect") == []
        assert started.drafts() == []
        assert started.stop() == 0


@pytest.fixture
def client(gateway: LocalGateway) -> Iterator[Wire]:
    """Connect to the gateway of the module."""
    with gateway.wire() as connection:
        yield connection


class _Sender:
    """Sends in a thread, so that who is answered meanwhile can read."""

    def __init__(self, client: Wire) -> None:
        self._client = client

    def __enter__(self) -> _Sender:
        return self

    def send(self, data: bytes) -> None:
        """Begin to send."""
        self._thread = threading.Thread(target=self._client.send, args=[data])
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def path_of(name: str) -> str:
    """Where a file of that name is put."""
    return f"/specimen?uri={name}.bin"


def check(gateway: LocalGateway, name: str, body: bytes) -> None:
    """The file is in the store, byte for byte, with the hash of what was sent."""
    root = gateway.objects / "specimen"
    (path,) = until(lambda: list(root.rglob(f"{name}.*")), f"{name} to be delivered")
    assert path.read_bytes() == body
    assert gateway.metadata_of(str(path.relative_to(root)))["sha256"] == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("first", [0, 1, 60_000, 700_000, None], ids=lambda first: f"first {first}")
def test_a_large_file_is_kept_whole(size: int, first: int | None, gateway: LocalGateway, client: Wire) -> None:
    """A large file is kept as it was sent, however much of it comes with its head and into whichever pieces it falls."""
    name, body = f"whole-{size}-{first}", DATA[:size]
    request = put(path_of(name), body, f"X-Request-ID: {name}")
    cut = len(request) if first is None else len(request) - size + first
    client.send(request[:cut])
    if first is not None:
        # Answered on another connection, it has surely seen the first part of this one.
        assert gateway.get("/health").status == 200
        client.send(request[cut:])
    assert client.answer().status == 204
    check(gateway, name, body)
    assert gateway.request_line(name)["received_bytes"] == size


def test_requests_behind_it_are_answered(gateway: LocalGateway, client: Wire) -> None:
    """What is sent right behind a large file on its connection is the next request, another such file too."""
    first, second = DATA[: LARGE_BYTES + 7], DATA[7 : WIDE_BODY_BYTES + 7]
    with ExitStack() as stack:
        sender = stack.enter_context(_Sender(client))
        sender.send(
            put(path_of("behind-1"), first)
            + put("/usage", b'{"behind":1}')
            + put(path_of("behind-2"), second)
            + head("GET /health")
            + put("/usage", b'{"behind":2}')
        )
        assert [client.answer().status for _ in range(5)] == [204, 204, 204, 200, 204]
    check(gateway, "behind-1", first)
    check(gateway, "behind-2", second)
    assert gateway.kept("usage")[-2:] == [b'{"behind":1}', b'{"behind":2}']


def test_it_may_be_asked_for(gateway: LocalGateway, client: Wire) -> None:
    """A large file is kept whose client waited to be told that it may send it."""
    body = DATA[:LARGE_BYTES]
    start = head(f"PUT {path_of('asked')}", f"Content-Length: {len(body)}", "Expect: 100-continue")
    assert client.ask(start).status == 100
    assert client.ask(body).status == 204
    check(gateway, "asked", body)


def test_connection_close_is_obeyed(gateway: LocalGateway, client: Wire) -> None:
    """The connection ends after a large file whose client wanted that, and nothing behind it is answered."""
    body = DATA[:LARGE_BYTES]
    answer = client.ask(put(path_of("close"), body, "Connection: close") + head("GET /health"))
    assert (answer.status, answer.headers["connection"]) == (204, "close")
    assert client.closed()
    check(gateway, "close", body)


def test_many_come_at_once(gateway: LocalGateway) -> None:
    """More large files at once than get wide pieces do not meet in each other's memory."""
    count = 2 * WIDE_BODIES
    bodies = [DATA[number : number + WIDE_BODY_BYTES + 1] for number in range(count)]
    with ExitStack() as stack:
        clients = [stack.enter_context(gateway.wire()) for _ in bodies]
        for number, (client, body) in enumerate(zip(clients, bodies, strict=True)):
            client.send(head(f"PUT {path_of(f'many-{number}')}", f"Content-Length: {len(body)}"))
        for start in range(0, WIDE_BODY_BYTES + 1, 700_000):
            for client, body in zip(clients, bodies, strict=True):
                client.send(body[start : start + 700_000])
        assert [client.answer().status for client in clients] == [204] * count
    for number, body in enumerate(bodies):
        check(gateway, f"many-{number}", body)


@pytest.mark.parametrize("how", ["reset", "close", "half-close"])
@pytest.mark.parametrize("sent", [0, 100_000, 900_000, 7_000_000])
def test_a_client_that_goes_leaves_nothing(sent: int, how: str, gateway: LocalGateway) -> None:
    """Of a large file whose client goes in the middle nothing is kept, and it is told as that."""
    request_id = f"gone-{sent}-{how}"
    with gateway.wire() as client:
        client.send(head(f"PUT {path_of('gone')}", f"Content-Length: {WIDE_BODY_BYTES}", f"X-Request-ID: {request_id}"))
        client.send(DATA[:sent])
        if sent > 2 * WIDE_PIECE_BYTES:
            until(gateway.drafts, "the body to reach the disk")
        if how == "reset":
            client.reset()
        elif how == "half-close":
            client.socket.shutdown(socket.SHUT_WR)
            assert client.closed()
    line = gateway.request_line(request_id)
    assert (line["status"], line["received_bytes"]) == (400, sent) if how != "reset" else line["status"] == 400
    assert gateway.drafts() == []
    assert not list((gateway.objects / "specimen").rglob("gone*"))


def test_silence_has_an_end_and_slowness_has_not(tmp_path: Path) -> None:
    """A large file may take many times the timeout as long as something comes; when nothing comes it gets 408."""
    with running(tmp_path, settings(limits={"body_timeout": "400ms"})) as gateway, gateway.wire() as client:
        body = DATA[:LARGE_BYTES]
        client.send(head(f"PUT {path_of('slow')}", f"Content-Length: {len(body)}") + body[:-10])
        for byte in body[-10:]:
            time.sleep(0.1)  # the slowness itself
            client.send(bytes([byte]))
        assert client.answer().status == 204
        check(gateway, "slow", body)
        began = time.monotonic()
        answer = client.ask(head(f"PUT {path_of('silent')}", f"Content-Length: {WIDE_BODY_BYTES}") + DATA[:7_000_000])
        assert (answer.status, answer.json()["error"]["code"]) == (408, "body_timeout")
        assert answer.headers["connection"] == "close"
        # Half of it: the timers of the loop count from a clock that may be some milliseconds behind.
        assert time.monotonic() - began >= 0.2
        client.socket.shutdown(socket.SHUT_WR)
        assert client.closed()
        assert gateway.left() == []
        assert gateway.stop() == 0


def test_a_disk_that_fills_is_told_to_who_sends_on(tmp_path: Path) -> None:
    """A large file that the disk does not take gets 507 though its client sends all of it before it looks at the answer."""
    with running(tmp_path, settings()) as gateway, gateway.wire() as client:
        # The kernel's bound on a file's size is a full disk for this process alone.
        resource.prlimit(gateway._running().pid, resource.RLIMIT_FSIZE, (5_000_000, 5_000_000))
        # So much that it cannot all wait between the two.
        answer = client.ask(put(path_of("full"), bytes(48 << 20)))
        assert answer.status >= 500
        assert answer.headers["connection"] == "close"
        assert client.closed()
        assert gateway.drafts() == []
        assert gateway.get("/health").status == 200


def test_a_stop_waits_for_it(tmp_path: Path) -> None:
    """A large file that is on its way when a stop begins is received to its end, and delivered."""
    with running(tmp_path, settings()) as gateway, gateway.wire() as client:
        body = DATA[:WIDE_BODY_BYTES]
        client.send(head(f"PUT {path_of('stop')}", f"Content-Length: {len(body)}") + body[:6_000_000])
        until(gateway.drafts, "the body to reach the disk")
        gateway.signal(signal.SIGTERM)
        until(lambda: gateway.events("stopping begun"), "the stop to begin")
        answer = client.ask(body[6_000_000:])
        assert (answer.status, answer.headers["connection"]) == (204, "close")
        assert gateway.wait() == 0
        check(gateway, "stop", body)


def test_a_stop_does_not_wait_for_ever(tmp_path: Path) -> None:
    """A large file whose client only holds the connection is given up when the time for requests is over."""
    with running(tmp_path, settings(shutdown={"request_timeout": "300ms"})) as gateway, gateway.wire() as client:
        client.send(head(f"PUT {path_of('held')}", f"Content-Length: {WIDE_BODY_BYTES}") + DATA[:6_000_000])
        until(gateway.drafts, "the body to reach the disk")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait() == 0
        assert gateway.drafts() == []
        assert gateway.events("defect") == []


# --- what a transport may tell at any time ----------------------------------------------------------------------------


class _Owner(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)

    def eof_received(self) -> bool:
        self.told.append("eof")
        return False

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


class _Parser:
    """Stands before a stream reader, which asks it to pause and to go on."""

    _reading_paused = False
    connected = True

    def pause_reading(self) -> None:
        """A test gives what it gives."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Likewise."""


class _Transport(asyncio.Transport):
    """Remembers whose it is and whether it reads."""

    protocol: asyncio.BaseProtocol | None = None
    reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False


class _Bench:
    """A body of 100 bytes, of which the parser has seen none."""

    def __init__(self) -> None:
        self.owner, self.transport, self.heads = _Owner(), _Transport(), 0
        self.content = aiohttp.StreamReader(cast("Any", _Parser()), 1 << 16, loop=asyncio.get_running_loop())
        self.body = LargeBody(self.owner, self.transport, self.content, 100, self._parse_anew)

    def _parse_anew(self) -> None:
        self.heads += 1

    def give(self, data: bytes) -> None:
        """What comes on the connection."""
        buffer = self.body.get_buffer(-1)
        buffer[: len(data)] = data
        self.body.buffer_updated(len(data))


async def test_all_else_is_told_to_the_connection() -> None:
    """What the transport tells that is not the body reaches the connection, whose writing and end go on as ever."""
    bench = _Bench()
    fault = ConnectionResetError("reset")
    bench.body.pause_writing()
    bench.body.resume_writing()
    assert bench.body.eof_received() is False
    bench.body.connection_lost(fault)
    assert bench.owner.told == ["pause", "resume", "eof", fault]


async def test_nothing_is_read_that_nobody_waits_for() -> None:
    """Between two reads the transport is paused, and no more room is offered than the body has bytes to come."""
    bench = _Bench()
    target = memoryview(bytearray(80))
    reading = asyncio.ensure_future(bench.body.read_into(target))
    await asyncio.sleep(0)
    assert (bench.transport.protocol, bench.transport.reading) == (bench.body, True)
    bench.give(b"x" * 70)
    assert not bench.transport.reading
    assert bytes(await reading) == b"x" * 70
    reading = asyncio.ensure_future(bench.body.read_into(target))
    await asyncio.sleep(0)
    assert len(bench.body.get_buffer(-1)) == 30
    bench.give(b"y" * 30)
    assert bytes(await reading) == b"y" * 30
    assert (bench.transport.protocol, bench.heads, bench.content.is_eof()) == (bench.owner, 1, True)
    assert len(await bench.body.read_into(target)) == 0


async def test_a_loss_between_two_reads_is_found_by_the_next() -> None:
    """A connection that ends while nobody reads is told to the next who does, at once and not after a timeout."""
    bench = _Bench()
    target = memoryview(bytearray(80))
    reading = asyncio.ensure_future(bench.body.read_into(target))
    await asyncio.sleep(0)
    bench.give(b"x")
    await reading
    bench.body.connection_lost(None)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(bench.body.read_into(target), 5)


async def test_what_nobody_wants_is_forgotten() -> None:
    """After the end of the block the rest is read into no one's memory, and the connection is given back behind it."""
    bench = _Bench()
    target = memoryview(bytearray(80))
    with bench.body as body:
        reading = asyncio.ensure_future(body.read_into(target))
        await asyncio.sleep(0)
        bench.give(b"x" * 10)
        await reading
    assert bench.transport.reading
    bench.give(b"y" * 90)
    assert bytes(target[:11]) == b"x" * 10 + b"\0"
    assert (bench.transport.protocol, bench.heads, bench.content.is_eof()) == (bench.owner, 1, True)


@pytest.mark.parametrize("arrives", ["after", "just then"])
async def test_a_wait_that_is_given_up_loses_nothing(arrives: str) -> None:
    """Who has stopped waiting and comes back with another buffer gets every byte, also those that came just at that moment."""
    bench = _Bench()
    first, second = memoryview(bytearray(100)), memoryview(bytearray(100))
    reading = asyncio.create_task(bench.body.read_into(first))
    await asyncio.sleep(0)
    if arrives == "just then":
        bench.give(b"a" * 40)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert not bench.transport.reading
    again = asyncio.create_task(bench.body.read_into(second))
    await asyncio.sleep(0)
    if arrives == "after":
        bench.give(b"a" * 40)
    assert bytes(await again) == b"a" * 40
    rest = asyncio.create_task(bench.body.read_into(first))
    await asyncio.sleep(0)
    bench.give(b"b" * 60)
    assert bytes(await rest) == b"b" * 60
    assert bytes(await bench.body.read_into(second)) == b""


async def test_a_wait_that_is_given_up_at_the_end_loses_nothing() -> None:
    """The last bytes of a body, too, are there for who comes back, though the connection is given back already."""
    bench = _Bench()
    buffer = memoryview(bytearray(100))
    reading = asyncio.create_task(bench.body.read_into(buffer))
    await asyncio.sleep(0)
    bench.give(b"a" * 100)
    reading.cancel()
    await asyncio.wait([reading])
    assert bytes(await bench.body.read_into(buffer)) == b"a" * 100
    assert bytes(await bench.body.read_into(buffer)) == b""


class _Content:
    """As much of a stream reader as a large body asks."""

    total_bytes = 0

    def read_nowait(self, _: int) -> bytes:
        return b""

    def exception(self) -> None:
        return None

    def feed_eof(self) -> None:
        """Nobody waits."""


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_what_comes_as_the_wait_is_given_up_is_not_lost(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Bytes that come in the very turn in which the reader is asked for what it holds are given out by the next call."""

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            transport, owner = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            body = LargeBody(owner, transport, _Content(), 20, lambda: None)  # type: ignore[arg-type]  # enough of it
            buffer, got = memoryview(bytearray(20)), b""
            theirs.send(b"0123456789")
            got += await body.read_into(buffer)

            def ask(limit: asyncio.Timeout) -> None:
                limit.reschedule(loop.time())
                loop.call_soon(theirs.send, b"abcdefghij")

            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S) as limit:
                    loop.call_soon(ask, limit)
                    got += await body.read_into(buffer)
            async with asyncio.timeout(WAIT_S):
                while chunk := bytes(await body.read_into(buffer[:3])):
                    got += chunk
            transport.abort()
        return got

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) == b"0123456789abcdefghij"
