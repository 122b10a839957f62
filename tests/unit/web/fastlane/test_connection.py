"""The fast lane answers, keeps and counts exactly as the ordinary lane does."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.config.streams import streams_of
from gateway.core import disk
from gateway.core.clock import Timestamps
from gateway.core.errors import Unanswerable
from gateway.service.receiver import HttpReceiver
from gateway.spool.journal import Done, Journal
from gateway.spool.spool import Spool
from gateway.telemetry.log import Log
from gateway.web.connection import Connection
from gateway.web.fastlane.connection import FastConnection
from gateway.web.fastlane.head import parse_head
from testkit import spool
from testkit.forms import form, part
from testkit.spool import new_metrics

USAGE = replace(spool.USAGE, max_body_bytes=1 << 20)
STREAMS = {"/usage": USAGE}
LIMIT = 4096


class Transport(asyncio.Transport):
    """The far end of a connection: keeps what is written, so that bytes can be given in pieces of any size."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5)})
        self.written = b""
        self.protocol: Connection | None = None
        self.closing = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(bytes(data) for data in list_of_data)

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            asyncio.get_running_loop().call_soon(self._lost)

    def abort(self) -> None:
        self.close()

    def _lost(self) -> None:
        if self.protocol is not None:
            self.protocol.connection_lost(None)


@dataclass(frozen=True)
class Result:
    """What came of some bytes.

    Attributes:
        answers: without what differs by nature.
        lines: that were kept.
        fast: how often the lane was used.
        log: as text.
    """

    answers: bytes
    lines: bytes
    fast: int
    log: str


async def run(pieces: list[bytes], *, fast_lane: bool, envelope: bool = False, in_turn: bool = False) -> Result:
    """Give the pieces to a connection of a gateway of its own, `in_turn` each after the answer to what is complete."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        overrides: dict[str, object] = {
            "cache_dir": root / "spool",
            "listen.fast_lane": fast_lane,
            "spool.segment_report_limit": LIMIT,
            "limits.report_bytes": 2 * LIMIT,
            "aggregation.envelope": envelope,
        }
        config = load(None, required_file=False, environ={}, overrides=overrides, local=True)
        log = Log(fd=os.open(root / "log", os.O_WRONLY | os.O_CREAT)).start()
        metrics = new_metrics()
        spool = Spool(config.cache_dir, streams_of(config), timestamps=Timestamps(), log=log, metrics=metrics)
        spool.lock.acquire()
        spool.directories.lay_out()
        receiving = HttpReceiver(config, spool, metrics, log, tls=None, degraded=list, on_defect=list)
        receiving.start()
        try:
            answers, fast = await _talk(receiving, pieces, in_turn=in_turn)
            await receiving.close()
            lines = b"".join(_lines(root / "spool" / "usage"))
        finally:
            spool.lock.release()
            log.close()
        return Result(_normal(answers), lines, fast, (root / "log").read_text())


async def _talk(receiving: HttpReceiver, pieces: list[bytes], *, in_turn: bool) -> tuple[bytes, int]:
    web = receiving._web
    fast = 0
    if web._lane is not None:
        report = web._lane.report

        def counted(answered: Any) -> None:
            nonlocal fast
            fast += len(answered)
            report(answered)

        web._lane.report = cast("Any", counted)
    steps = _watch_steps()
    connection = web.server(75.0)()
    assert isinstance(connection, Connection)
    transport = Transport()
    transport.protocol = connection
    connection.connection_made(transport)
    for piece in pieces:
        if not transport.closing:
            connection.data_received(piece)
        if in_turn:
            await _settled(receiving, transport, steps)
        else:
            await asyncio.sleep(0)
    await _settled(receiving, transport, steps)
    transport.close()
    await asyncio.wait_for(web.idle(), 20)
    return transport.written, fast


def _watch_steps() -> set[asyncio.Future[Any]]:
    """What threads are doing for the loop, at any moment."""
    steps: set[asyncio.Future[Any]] = set()
    loop = asyncio.get_running_loop()
    begin = loop.run_in_executor

    def watched(*arguments: Any) -> asyncio.Future[Any]:
        future = begin(*arguments)
        steps.add(future)
        future.add_done_callback(steps.discard)
        return future

    loop.run_in_executor = watched  # type: ignore[assignment]
    return steps


async def _settled(receiving: HttpReceiver, transport: Transport, steps: set[asyncio.Future[Any]]) -> None:
    """Until nothing happens any more: all is answered, or one request waits for the rest of its body."""
    quiet = 0
    written = -1
    async with asyncio.timeout(20):
        while quiet < 5:
            await asyncio.sleep(0.001)
            pending = steps or any(journal._pending_bytes for journal in receiving._journals.values())
            still = not pending and len(transport.written) == written and receiving._web._in_flight <= 1
            quiet = quiet + 1 if still else 0
            written = len(transport.written)


def _lines(directory: Path) -> Iterator[bytes]:
    for name in sorted(disk.names(directory)):
        if (directory / name).is_file():
            yield (directory / name).read_bytes()


def _normal(answers: bytes) -> bytes:
    answers = re.sub(rb"Date: [^\r]*", b"Date: now", answers)
    return re.sub(rb"X-Request-ID: [0-9a-f]{24}\r", b"X-Request-ID: ours\r", answers)


def request(
    body: bytes, *fields: str, method: str = "PUT", path: str = "/usage", version: str = "HTTP/1.1", host: str = "Host: x"
) -> bytes:
    """A request with Content-Length."""
    head = [f"{method} {path} {version}", host, *fields, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode() + body


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """The data in pieces, cut at these offsets."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


PLAIN = request(b'{"a":1}', "USER_TOKEN: alice")
BODIES = (
    st.sampled_from(
        [b'{"a":1}', b"1", b"", b"[1,\r\n2]\n", b'{"a":1,}', b"NaN", b'"\\ud800"', b"\xff", b"[" * 1001 + b"]" * 1001]
    )
    | st.sampled_from([form(part(b'{"a":1}')), form(part(b"1\n2")), form(part(b"1"), part(b"2"))])
    | st.binary(max_size=20)
    | st.integers(1, 2 * LIMIT + 10).map(lambda size: b"1" * size)
)
FIELDS = st.lists(
    st.sampled_from(
        [
            "USER_TOKEN: alice",
            "user_token:bob",
            "USER_TOKEN: ",
            "USER_TOKEN:  two",
            "USER_TOKEN: h\u00e9",
            "Authorization: Bearer carol",
            "Authorization: Basic eDp5",
            "Content-Type: application/json",
            "Content-Type: application/x-ndjson; charset=utf-8",
            "Content-Type: multipart/form-data",
            "Content-Type: multipart/form-data; boundary=-b-",
            "Connection: close",
            "Connection: keep-alive",
            "Proxy-Connection: close",
            "Sec-WebSocket-Key1: x",
            "Origin: https://example.com",
            "Expect: 100-continue",
            "Expect: wonders",
            "Content-Encoding: gzip",
            "Content-Encoding: identity",
            "Content-Encoding: br",
            "X-Request-ID: mine-1",
            "X-Request-ID: not sane",
            "Accept: */*",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked",
            "Authorization: Bearer dan",
            "USER_TOKEN: dan",
            "Content-Type: application/jsonl",
            "Expect: 100-continue, wonders",
            "Expect:",
            "Host: x",
            "Content-Length: 7",
            "Bad Name: x",
            "Folded: a\r\n b",
        ]
    ),
    max_size=4,
)
REQUESTS = st.one_of(
    st.just(PLAIN),
    st.just(request(b'{"b":\n2}', "USER_TOKEN: alice", "X-Request-ID: mine")),
    st.builds(
        lambda body, fields, method, path: request(body, "USER_TOKEN: dan", *fields, method=method, path=path),
        BODIES,
        FIELDS,
        st.sampled_from(["PUT", "POST", "GET", "put"]),
        st.sampled_from(["/usage", "/usage?x=1", "/usage/", "/nothing", "/health"]),
    ),
    st.builds(lambda body, fields: request(body, *fields), BODIES, FIELDS),
    st.builds(
        lambda fields, version, host: request(b'{"c":3}', "USER_TOKEN: dan", *fields, version=version, host=host),
        FIELDS,
        st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "RTSP/1.0", "http/1.1", ""]),
        st.sampled_from(["Host: x", "Host: x:80", "Host:", "Host: a,b", "Host: u@a", "Host: a:99999999", "Host: [::1]", "X: y"]),
    ),
    # As many fields as a parser may find too many.
    st.integers(95, 135).map(lambda count: request(b"1", "USER_TOKEN: f", *(f"X-{number}: y" for number in range(count)))),
    st.just(b"PUT /usage HTTP/1.1\r\nUSER_TOKEN: e\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"),
    st.just(
        b"PUT /usage HTTP/1.1\r\nHost: x\r\nUSER_TOKEN: e\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\n[1]\r\n0\r\nX: y\r\n\r\n"
    ),
    st.just(b"PUT /usage HTTP/1.1\r\nHost: x\r\nUSER_TOKEN: e\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]]\r\n0\r\n\r\n"),
    st.just(b"PUT /usage HTTP/1.0\r\nUSER_TOKEN: e\r\nContent-Length: 1\r\n\r\n1"),
    st.just(b"PUT /usage\n"),
    st.just(b"PUT /usage HTTP/1.1\nUSER_TOKEN: e\nContent-Length: 1\n\n1"),
    st.just(b"PUT /usage HTTP/1.1\r\nUSER_TOKEN: e\r\nContent-Length: 01\r\n\r\n1"),
    st.just(b"PUT /usage HTTP/1.1\r\nUSER_TOKEN: e\r\nContent-Length: +1\r\n\r\n1"),
    st.binary(max_size=30),
)


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 1 << 16), max_size=6),
    dropped=st.sampled_from([0, 0, 0, 1, 5]),
    envelope=st.booleans(),
)
def test_both_lanes_answer_and_keep_the_same(requests: list[bytes], cuts: list[int], dropped: int, envelope: bool) -> None:
    """Whatever is sent, however it is cut and pipelined, both lanes give the same answers and keep the same lines."""
    data = b"".join(requests)
    pieces = split(data[: len(data) - dropped], cuts)

    async def both() -> tuple[Result, Result]:
        return (
            await run(pieces, fast_lane=True, envelope=envelope),
            await run(pieces, fast_lane=False, envelope=envelope),
        )

    fast, ordinary = asyncio.run(both())
    assert fast.answers == ordinary.answers
    received_at = re.compile(rb'"received_at":"[^"]*"')
    assert received_at.sub(b"", fast.lines) == received_at.sub(b"", ordinary.lines)


@pytest.mark.parametrize("boundary", ["", "; boundary=-b-"])
@pytest.mark.parametrize("body", [b'{"a":1}', form(part(b'{"a":1}'))])
async def test_both_lanes_know_a_form(body: bytes, boundary: str) -> None:
    """A body that claims to be a form gets one answer in both lanes, also where it is a document by itself."""
    sent = [request(body, "USER_TOKEN: alice", f"Content-Type: multipart/form-data{boundary}")]
    fast, ordinary = await run(sent, fast_lane=True), await run(sent, fast_lane=False)
    assert (fast.answers, fast.lines) == (ordinary.answers, ordinary.lines)
    assert fast.lines == (b'{"a":1}\n' if boundary and body.startswith(b"--") else b"")


@pytest.mark.parametrize("offset", range(1, len(PLAIN)))
async def test_plain_report_cut_anywhere(offset: int) -> None:
    """A plain report cut in two at any offset is answered with 204 and kept once."""
    result = await run([PLAIN[:offset], PLAIN[offset:]], fast_lane=True)
    assert result.answers.startswith(b"HTTP/1.1 204 ")
    assert result.lines == b'{"a":1}\n'


async def test_lane_is_used() -> None:
    """Plain reports in a row, whole or with head and body apart, go through the fast lane."""
    head = len(PLAIN) - len(b'{"a":1}')
    result = await run([PLAIN, PLAIN[:head], PLAIN[head:], PLAIN], fast_lane=True, in_turn=True)
    assert (result.fast, result.lines.count(b"\n")) == (3, 3)


async def test_what_comes_during_a_sync_is_kept() -> None:
    """A request that is sent while the one before is being synced is answered after it."""
    result = await run([PLAIN, PLAIN, PLAIN], fast_lane=True)
    assert result.answers.count(b"HTTP/1.1 204 ") == 3


@pytest.mark.parametrize("fast_lane", [True, False])
async def test_what_is_in_doubt_is_not_answered(*, fast_lane: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not known whether a report stays, its connection ends without an answer, and the log says which it was."""

    def append(_: Journal, __: int, ___: bytes, done: Done) -> None:
        asyncio.get_running_loop().call_soon(done, Unanswerable("the disk does neither"))

    monkeypatch.setattr(Journal, "append", append)
    result = await run([request(b"1", "USER_TOKEN: alice", "X-Request-ID: mine")], fast_lane=fast_lane)
    assert result.answers == b""
    (told,) = [line for line in result.log.splitlines() if "request not answered" in line]
    assert told.endswith('request_id=mine reason="the disk does neither"')


async def test_a_defect_after_an_answer_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the connection, whose report is kept, and comes to the loop's handler, which logs it."""
    defect = RuntimeError("a defect")

    def fails(*_: object) -> None:
        raise defect

    met: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: met.append(context.get("exception")))
    monkeypatch.setattr(FastConnection, "is_idle_from", fails)
    result = await run([PLAIN], fast_lane=True)
    assert met == [defect]
    assert result.answers.startswith(b"HTTP/1.1 204 ")
    assert result.lines == b'{"a":1}\n'


async def test_lane_can_be_closed() -> None:
    """With the key off no request takes the fast lane."""
    result = await run([PLAIN], fast_lane=False)
    assert (result.fast, result.lines) == (0, b'{"a":1}\n')


@pytest.mark.parametrize(
    "head",
    [
        request(b"1"),
        request(b"1", "USER_TOKEN: a", "user_token: b"),
        request(b"1", "USER_TOKEN: a", "Connection: close"),
        request(b"1", "USER_TOKEN: a", "Proxy-Connection: close"),
        request(b"1", "USER_TOKEN: a", "Sec-WebSocket-Key1: x"),
        request(b"1", "USER_TOKEN: a", *(f"X-{number}: y" for number in range(100))),
        request(b"1", "USER_TOKEN: a", "Transfer-Encoding: chunked"),
        request(b"1", "USER_TOKEN: a", "Content-Encoding: gzip"),
        request(b"1", "USER_TOKEN: a", "Expect: 100-continue"),
        request(b"1", "USER_TOKEN: a", "Content-Type: application/x-ndjson"),
        request(b"1", "USER_TOKEN: a", "Content-Type: Multipart/Form-Data; boundary=b"),
        request(b"1", "USER_TOKEN: a", "Content-Length: 1"),
        request(b"1", "USER_TOKEN: a", "Content-Type: application/jsonlines"),
        request(b"1", "USER_TOKEN: a", "Authorization: Bearer b"),
        request(b"1", "USER_TOKEN: a", version="HTTP/1.2"),
        request(b"1", "USER_TOKEN: a", version="HTTP/1.0"),
        request(b"1", "USER_TOKEN: a", host="Host: a,b"),
        request(b"1", "USER_TOKEN: a", host="Host: u@a"),
        request(b"1", "USER_TOKEN: a", host="Host: a:99999999"),
        request(b"1", "USER_TOKEN: a", host="X: y"),
        request(b"1", "USER_TOKEN: a", method="GET"),
        request(b"1", "USER_TOKEN: a", path="/usage?x"),
        request(b"1" * (LIMIT + 1), "USER_TOKEN: a"),
    ],
)
def test_head_that_is_not_plain(head: bytes) -> None:
    """A head with anything that is not plain is left to aiohttp."""
    assert parse_head(head[: head.index(b"\r\n\r\n") + 4], STREAMS, LIMIT) is None


def test_plain_head() -> None:
    """A plain head is read in full."""
    head = parse_head(request(b"12", "USER_TOKEN: a b", "X-Request-ID: r", "Content-Type: text/plain")[:-2], STREAMS, LIMIT)
    assert head is not None
    assert (head.user, head.request_id, head.length, head.stream) == ("a b", "r", 2, USAGE)
