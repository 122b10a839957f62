"""From an admitted request to a commit."""

from __future__ import annotations

import asyncio
import errno
import gzip
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.web import RequestPayloadError
from backports import zstd

from gateway.admission.capacity import Bounds, Capacity
from gateway.admission.descriptors import OpenFiles
from gateway.admission.write_fault import WriteFault
from gateway.core import clock, disk, media_type
from gateway.core.errors import (
    BadRequest,
    BodyTimeout,
    ClientGone,
    GatewayError,
    Overloaded,
    SpoolBroken,
    SpoolFull,
    TooLarge,
)
from gateway.core.streams import Stream
from gateway.intake.body import PIECE_BYTES, STREAMED_BODY_BYTES, TINY_BYTES, BodyReader, Incoming
from gateway.intake.content import Content
from gateway.intake.pace import MEASURED_S, Pace
from gateway.intake.pipeline import Pipeline
from gateway.intake.receive import BodyTimes, Intake
from gateway.spool import names
from gateway.spool.journal import Journal, SegmentLimits
from gateway.spool.sidecar import read_sidecar
from testkit.forms import SENT, SentForm
from testkit.spool import SPECIMEN, START_NS, USAGE, WAIT_S, Bench, open_bench, soon

LIMIT = 1000
SMALL, LARGE = b'{"small":1}', b'["%b"]' % (b"x" * LIMIT)


class Body(aiohttp.StreamReader):
    """A body whose chunks a test gives, one after the other, and at last its end or a fault."""

    def __init__(self) -> None:
        super().__init__(cast("Any", _Protocol()), 1 << 16, loop=asyncio.get_running_loop())

    def end(self, *chunks: bytes) -> Body:
        """Give these chunks and the end."""
        for chunk in chunks:
            self.feed_data(chunk)
        self.feed_eof()
        return self


class _Protocol:
    """What a stream reader asks to pause and to go on."""

    _reading_paused = False
    connected = True

    def pause_reading(self) -> None:
        """Not needed: a test gives what it gives."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Not needed either."""


@dataclass
class Door:
    """An intake with the spool behind it."""

    bench: Bench
    journal: Journal
    capacity: Capacity
    intake: Intake
    executor: ThreadPoolExecutor
    fault: WriteFault

    def incoming(self, body: Body, stream: Stream = USAGE, content_type: str = "", encoding: str = "", **fields: Any) -> Incoming:
        """An admitted body."""
        reservation = self.capacity.reserve(stream, fields.get("length"))
        plain = Incoming(
            stream=stream,
            user="alice",
            uri="a/b.png",
            content=Content(stream, content_type, encoding),
            length=None,
            body=body,
            reservation=reservation,
        )
        return replace(plain, **fields)

    async def reports(self, *chunks: bytes, **fields: Any) -> int:
        """Receive a whole body of reports."""
        incoming = self.incoming(Body().end(*chunks), **fields)
        try:
            return await self.intake.receive_reports(incoming)
        finally:
            incoming.reservation.release()

    def kept(self) -> list[bytes]:
        """Every committed line of reports."""
        files = sorted(self.bench.spool.directories.of(USAGE).glob("*.json*"))
        return [line for path in files for line in path.read_bytes().splitlines()]

    def nothing_left(self) -> bool:
        """Whether neither a report nor a file nor a draft is there."""
        files = [path for path in self.bench.spool.directories.of(SPECIMEN).iterdir() if path.is_file()]
        return self.kept() == [] and files == [] and os.listdir(self.bench.spool.directories.tmp) == []


async def turns_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something has come about that tells nobody of itself."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 (what it waits for has no event, and a turn is no sleep)
            await asyncio.sleep(0)


@pytest.fixture
async def make_door(tmp_path: Path) -> AsyncIterator[Callable[..., Door]]:
    """Give what makes an intake with its own settings."""
    with open_bench(tmp_path) as bench, ThreadPoolExecutor(2) as executor:
        journals: list[Journal] = []
        faults: list[WriteFault] = []

        def make(**settings: Any) -> Door:
            limits = SegmentLimits(max_bytes=1 << 20, max_age_s=3600.0, pending_bytes=settings.pop("pending", 1 << 20))
            journal = Journal(bench.spool, USAGE, limits, log=bench.log, metrics=bench.metrics)
            journal.start()
            journals.append(journal)
            bounds = Bounds(
                quota=settings.pop("quota", 0),
                reserve=0,
                pending_bytes=settings.pop("memory", 1 << 30),
                held_bytes=LIMIT,
                streamed_bytes=STREAMED_BODY_BYTES,
            )
            plain: dict[str, Any] = {"segment_report_limit": LIMIT, "envelope": False}
            times = BodyTimes(settings.pop("body_timeout_s", WAIT_S), settings.pop("body_min_rate", 0))
            fault = WriteFault(bench.spool, executor, bench.log, pause_s=0.001)
            faults.append(fault)
            capacity = Capacity(bench.spool, bounds, {})
            made = Intake(
                bench.spool,
                {"usage": journal},
                capacity,
                times=times,
                pipeline=Pipeline(executor, fault, OpenFiles(1024, 0)),
                **(plain | settings),
            )
            return Door(bench, journal, capacity, made, executor, fault)

        yield make
        for fault in faults:
            await fault.close()
        for journal in journals:
            await journal.close()


@pytest.fixture
async def door(make_door: Callable[..., Door]) -> Door:
    """Give an intake."""
    return make_door()


# --- reports -----------------------------------------------------------------------------------------------------


async def test_a_report_is_synced_when_it_is_received(door: Door) -> None:
    """A small report stands in a segment when its receipt ends, and was synced before."""
    synced: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        sync = disk.sync

        def noting(descriptor: int) -> None:
            sync(descriptor)
            synced.append(descriptor)

        patch.setattr(disk, "sync", noting)
        assert await door.reports(SMALL, length=len(SMALL)) == 1
    assert synced
    assert door.kept() == [SMALL]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1, 300_000])
async def test_the_decoded_size_decides(size: int, encoding: str, known: bool, door: Door) -> None:
    """Up to the limit a report goes into a segment, above into a file of its own, however it comes."""
    report = b'"%b"' % (b"x" * (size - 2))
    sent = gzip.compress(report) if encoding else report
    fields = {"length": len(sent)} if known else {}
    assert await door.reports(sent[: len(sent) // 2], sent[len(sent) // 2 :], encoding=encoding, **fields) == 1
    assert door.kept() == [report]
    own = list(door.bench.spool.directories.of(USAGE).glob("*.json"))
    assert len(own) == (size > LIMIT)


@pytest.mark.parametrize("limit", [0, 1, LIMIT])
async def test_many_reports_are_taken_as_one(limit: int, make_door: Callable[..., Door]) -> None:
    """Many lines are received all together, and counted each, wherever the limit is."""
    door = make_door(segment_report_limit=limit)
    body = b"1\n\n2\r\n" + b"3\n" * 1000
    assert await door.reports(body, content_type="application/x-ndjson; charset=utf-8", length=len(body)) == 1002
    assert door.kept() == [b"1", b"2"] + [b"3"] * 1000
    with pytest.raises(BadRequest, match="line 2"):
        await door.reports(b"1\n2,\n3\n", content_type="application/x-ndjson")
    assert len(door.kept()) == 1002


async def test_a_draft_that_cannot_be_removed_changes_no_answer(
    make_door: Callable[..., Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was wrong with a body is the error, also where what was written of it stays; the next start erases that."""
    door = make_door()
    body = b"1\n" * LIMIT + b"2,\n"

    def failing(_: Path) -> None:
        raise OSError(errno.EIO, "x")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "remove", failing)
        with pytest.raises(BadRequest, match=f"line {LIMIT + 1}"):
            await door.reports(body, content_type="application/x-ndjson")
    assert door.kept() == []
    assert len(os.listdir(door.bench.spool.directories.tmp)) == 1
    assert await door.reports(b"1") == 1


async def test_a_report_says_when_it_came(make_door: Callable[..., Door]) -> None:
    """The instant in an envelope is that of the clock, also after that was stepped back."""
    door = make_door(envelope=True)
    reports = [b'{"n":%d}' % number for number in range(100)]
    for report in reports:
        door.bench.clock.now_ns -= clock.NANOSECONDS
        await door.reports(report, length=len(report))
    lines = [json.loads(line) for line in door.kept()]
    assert [line["received_at"] for line in lines] == [
        clock.iso(START_NS - (line["report"]["n"] + 1) * clock.NANOSECONDS) for line in lines
    ]
    assert sorted(line["report"]["n"] for line in lines) == list(range(100))
    assert {line["user"] for line in lines} == {"alice"}


async def test_envelopes_count_towards_the_limit(make_door: Callable[..., Door]) -> None:
    """A small body of many tiny reports is refused where their envelopes would make it pass the limit of a body."""
    door = make_door(envelope=True)
    body = b"1\n" * 40
    stream = replace(USAGE, max_body_bytes=1000)
    fields: dict[str, Any] = {"content_type": "application/x-ndjson", "length": len(body)}
    with pytest.raises(TooLarge, match="with an envelope"):
        await door.intake.receive_reports(door.incoming(Body().end(body), stream, **fields))
    assert door.nothing_left()
    assert await door.reports(body, **fields) == 40


async def test_all_or_none_of_many_are_taken(make_door: Callable[..., Door]) -> None:
    """Lines that do not fit into what may be pending are refused all together, and `done` is not called."""
    door = make_door(pending=1000)
    called: list[GatewayError | None] = []
    gate = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        sync = disk.sync

        def slow(descriptor: int) -> None:
            gate.wait(WAIT_S)
            sync(descriptor)

        patch.setattr(disk, "sync", slow)
        first = asyncio.create_task(door.reports(b'"%b"' % (b"x" * 900), length=902))
        await turns_until(lambda: door.journal._pending_bytes > 0)
        with pytest.raises(Overloaded):
            door.intake.commit_document(USAGE, "u", b"[" + b"1," * 100 + b"1]", called.append)
        gate.set()
        assert await first == 1
    assert called == []
    assert len(door.kept()) == 1


async def test_a_disk_that_fails_is_told(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that could not be synced is an error, not a receipt."""

    def failing(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync", failing)
        with pytest.raises(SpoolFull):
            await door.reports(SMALL, length=len(SMALL))
    assert door.kept() == []


async def test_an_unfinished_receipt_may_be_given_up(door: Door) -> None:
    """A request that is cancelled while its report is being synced harms nobody: the report stays, unanswered."""
    gate, reached = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        sync = disk.sync

        def slow(descriptor: int) -> None:
            loop.call_soon_threadsafe(reached.set)
            gate.wait(WAIT_S)
            sync(descriptor)

        patch.setattr(disk, "sync", slow)
        receiving = asyncio.create_task(door.reports(SMALL, length=len(SMALL)))
        await soon(reached)
        receiving.cancel()
        gate.set()
        await asyncio.wait([receiving])
    assert receiving.cancelled()
    assert await door.reports(b"2", length=1) == 1
    assert door.kept() == [SMALL, b"2"]


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
async def test_a_file_is_received(size: int, door: Door) -> None:
    """A file is there with its sidecar when its receipt ends, each under an id of its own."""
    body = bytes(range(250)) * (size // 250)
    for _ in range(2):
        incoming = door.incoming(Body().end(body), SPECIMEN, content_type="image/x-own")
        assert await door.intake.receive_file(incoming) == 1
        assert incoming.received_bytes == len(body)
    sidecars = [read_sidecar(path) for path in door.bench.spool.directories.of(SPECIMEN).glob("*.body")]
    assert [(one.user, one.uri, one.type, one.size) for one in sidecars] == [("alice", "a/b.png", "image/x-own", len(body))] * 2
    assert len({one.id for one in sidecars}) == 2
    assert os.listdir(door.bench.spool.directories.tmp) == []


@pytest.mark.parametrize("sent", SENT, ids=[sent.client for sent in SENT])
async def test_the_file_of_a_form_is_received(sent: SentForm, door: Door) -> None:
    """What a form says of its file stands in the sidecar: its type with the charset, its filename and its fields."""
    incoming = door.incoming(
        Body().end(sent.body),
        SPECIMEN,
        uri="",
        content_type=sent.content_type,
        encoding=sent.encoding,
    )
    assert await door.intake.receive_file(incoming) == 1
    (path,) = door.bench.spool.directories.of(SPECIMEN).glob("*.body")
    sidecar = read_sidecar(path)
    assert path.read_bytes() == sent.file
    assert (sidecar.uri, sidecar.filename, sidecar.fields) == (sent.filename, sent.filename, sent.fields)
    assert sidecar.type == media_type.content_type(sent.file_type, sent.file)
    assert os.listdir(door.bench.spool.directories.tmp) == []


# --- bodies that fail --------------------------------------------------------------------------------------------

FAULTS = [
    (RequestPayloadError("400"), BadRequest),
    (aiohttp.ClientPayloadError("cut"), ClientGone),
    (aiohttp.ClientConnectionError("gone"), ClientGone),
    (ConnectionResetError("reset"), ClientGone),
]


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=[type(fault).__name__ for fault, _ in FAULTS])
@pytest.mark.parametrize("sent", [b"", b"x" * 700_000])
@pytest.mark.parametrize("stream", [USAGE, SPECIMEN], ids=["usage", "specimen"])
async def test_a_body_that_breaks_leaves_nothing(
    stream: Stream, sent: bytes, fault: Exception, kind: type[GatewayError], door: Door
) -> None:
    """A body that breaks off is told apart: not as its head says, or its client gone; nothing of it stays."""
    body = Body()
    if sent:
        body.feed_data(b'"' + sent)
    incoming = door.incoming(body, stream)
    receive = door.intake.receive_reports if stream is USAGE else door.intake.receive_file
    receiving = asyncio.create_task(receive(incoming))
    await turns_until(lambda: incoming.received_bytes >= len(sent))
    body.set_exception(fault)
    with pytest.raises(kind):
        await receiving
    assert door.nothing_left()


@pytest.mark.parametrize("sent", [b"", b"1", b"x" * 700_000])
@pytest.mark.parametrize("length", [None, 5, 999_999])
async def test_a_silent_client_is_let_go(length: int | None, sent: bytes, make_door: Callable[..., Door]) -> None:
    """A client that is silent in the middle of a body is let go after the timeout, and nothing of it stays."""
    door = make_door(body_timeout_s=0.05)
    for stream, receive in ((USAGE, door.intake.receive_reports), (SPECIMEN, door.intake.receive_file)):
        body = Body()
        if sent:
            body.feed_data(b'"' + sent)
        with pytest.raises(BodyTimeout, match=r"0\.05 seconds"):
            await receive(door.incoming(body, stream, length=length))
    assert door.nothing_left()


@pytest.mark.parametrize("stream", [USAGE, SPECIMEN], ids=["usage", "specimen"])
async def test_a_receipt_that_is_cancelled_leaves_nothing(stream: Stream, door: Door) -> None:
    """A request that is cancelled in the middle of its body removes its draft before it ends."""
    body = Body()
    body.feed_data(b'"' + b"x" * 700_000)
    receive = door.intake.receive_reports if stream is USAGE else door.intake.receive_file
    receiving = asyncio.create_task(receive(door.incoming(body, stream)))
    await turns_until(lambda: bool(os.listdir(door.bench.spool.directories.tmp)))
    receiving.cancel()
    await asyncio.wait([receiving])
    assert receiving.cancelled()
    assert door.nothing_left()


async def test_a_body_over_its_limit_is_stopped(door: Door) -> None:
    """A body that is over its limit as it comes is stopped there, and not read to its end."""
    stream = replace(SPECIMEN, max_body_bytes=1000)
    body = Body()
    body.feed_data(b"x" * 1001)
    incoming = door.incoming(body, stream)
    with pytest.raises(TooLarge, match="1000"):
        await door.intake.receive_file(incoming)
    assert door.nothing_left()


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, SpoolFull), (errno.EIO, SpoolBroken)])
async def test_a_disk_that_fails_ends_the_body(
    code: int, kind: type[GatewayError], door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses a piece the body is refused in the middle, though more of it would come."""

    def failing(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    body = Body()
    for _ in range(4):
        body.feed_data(b"x" * 300_000)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_all", failing)
        receiving = asyncio.create_task(door.intake.receive_file(door.incoming(body, SPECIMEN)))

        def is_over() -> bool:
            body.feed_data(b"x" * 1000)
            return receiving.done()

        await turns_until(is_over)
    with pytest.raises(kind):
        await receiving
    # A trial of whether the disk keeps files again may be under way.
    await turns_until(door.nothing_left)


@pytest.mark.parametrize("stream", [SPECIMEN, USAGE])
async def test_less_than_was_announced_is_never_a_whole_body(stream: Stream, door: Door) -> None:
    """Whoever loses a part of a body, it is not kept as if it were all."""
    body = Body()
    body.feed_data(b'"' + b"x" * 400_000 + b'"')
    body.feed_eof()
    incoming = door.incoming(body, stream, length=400_003)
    receive = door.intake.receive_file if stream is SPECIMEN else door.intake.receive_reports
    with pytest.raises(BadRequest, match="ended after 400002 bytes"):
        await receive(incoming)
    assert door.nothing_left()


async def test_a_body_of_unknown_length_is_held_to_the_quota(make_door: Callable[..., Door]) -> None:
    """A body of unknown length that passes the quota is stopped in the middle, and nothing of it stays."""
    door = make_door(quota=1_000_000)
    body = Body()
    receiving = asyncio.create_task(door.intake.receive_file(door.incoming(body, SPECIMEN)))
    fed = 0
    async with asyncio.timeout(WAIT_S):
        while not receiving.done():
            body.feed_data(b"x" * 300_000)
            fed += 1
            await asyncio.wait([receiving], timeout=0.01)
    with pytest.raises(SpoolFull, match="quota"):
        await receiving
    assert fed < 100
    assert door.nothing_left()


async def test_a_bomb_is_held_to_the_quota(make_door: Callable[..., Door]) -> None:
    """A few bytes that decode to more than the quota are refused, and nothing of them stays."""
    door = make_door(quota=1_000_000)
    sent = gzip.compress(b" " * 50_000_000)
    with pytest.raises(SpoolFull, match="quota"):
        await door.intake.receive_file(door.incoming(Body().end(sent), SPECIMEN, encoding="gzip", length=len(sent)))
    assert door.nothing_left()
    assert door.fault.current() is None


@pytest.mark.parametrize("bound", ["memory", "quota"])
async def test_envelopes_of_small_reports_are_charged(bound: str, make_door: Callable[..., Door]) -> None:
    """Tiny reports whose envelopes take more than memory or room are refused, and what was charged is given back."""
    door = make_door(envelope=True, **{bound: 2500})
    body = b"1\n" * 40
    fields: dict[str, Any] = {"content_type": "application/x-ndjson", "length": len(body)}
    with pytest.raises(Overloaded if bound == "memory" else SpoolFull):
        await door.reports(body, **fields)
    assert door.nothing_left()
    assert await door.reports(b"1\n" * 20, **(fields | {"length": 40})) == 20
    assert door.capacity.room.promised_bytes == 0


# --- memory and time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["small report", "report", "file"])
async def test_what_is_held_of_slow_bodies_is_written_when_memory_is_short(kind: str, make_door: Callable[..., Door]) -> None:
    """Clients that send most of a body and then wait keep nobody out, and their bodies are kept when they go on."""
    door = make_door(memory=1_000_000, segment_report_limit=300_000)
    stream = SPECIMEN if kind == "file" else USAGE
    receive = door.intake.receive_file if kind == "file" else door.intake.receive_reports
    half = b"x" * 200_000
    length = 200_002 if kind == "small report" else None
    bodies = [Body() for _ in range(4)]
    receiving = []
    for body in bodies:
        body.feed_data(b'"' + half)
        incoming = door.incoming(body, stream, length=length)
        receiving.append(asyncio.create_task(receive(incoming)))
    await turns_until(lambda: door.capacity.memory.bytes > 800_000)
    large = b'"%b"' % (b"y" * 250_000)
    with pytest.raises(Overloaded):
        await door.reports(large, length=len(large))
    await turns_until(lambda: door.capacity.memory.bytes == 0)
    assert len(os.listdir(door.bench.spool.directories.tmp)) == 4
    assert await door.reports(large, length=len(large)) == 1
    for body in bodies:
        body.end(b'"')
    assert await asyncio.gather(*receiving) == [1, 1, 1, 1]
    whole = b'"' + half + b'"'
    if kind == "file":
        assert [path.read_bytes() for path in door.bench.spool.directories.of(SPECIMEN).glob("*.body")] == [whole] * 4
    else:
        assert sorted(door.kept()) == sorted([whole] * 4 + [large])


async def test_the_slowest_decoder_ends_when_memory_is_short(make_door: Callable[..., Door]) -> None:
    """Windows of decoders cannot be written: of clients that send a byte now and then one ends, with what to do about it."""
    now_s = [0.0]
    door = make_door(memory=20 << 20, monotonic=lambda: now_s[0])
    capacity = door.capacity
    capacity.memory._monotonic = lambda: now_s[0]
    incomings = []
    for _ in range(2):
        body = Body()
        body.feed_data(zstd.compress(os.urandom(300_000)))
        incomings.append(door.incoming(body, SPECIMEN, encoding="zstd"))
    slow = [asyncio.create_task(door.intake.receive_file(incoming)) for incoming in incomings]
    await turns_until(lambda: capacity.memory.bytes == 16 << 20)
    now_s[0] += 200 * MEASURED_S
    with pytest.raises(Overloaded):
        capacity.memory.check(8 << 20)
    done, waiting = await asyncio.wait(slow, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
    (ended,) = done
    with pytest.raises(Overloaded, match="more slowly"):
        ended.result()
    incomings[slow.index(ended)].reservation.release()
    capacity.memory.check(8 << 20)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


@pytest.mark.parametrize("length", [None, 500, 999_999])
async def test_a_body_that_comes_too_slowly_is_let_go(length: int | None, make_door: Callable[..., Door]) -> None:
    """A client that is never silent and yet too slow is let go, with the rate and the key, and nothing of its body stays."""
    now_s = [0.0]
    door = make_door(body_timeout_s=WAIT_S, body_min_rate=512, monotonic=lambda: now_s[0])
    for stream, receive in ((USAGE, door.intake.receive_reports), (SPECIMEN, door.intake.receive_file)):
        body = Body()
        incoming = door.incoming(body, stream, length=length)
        receiving = asyncio.create_task(receive(incoming))
        await _drip(body, receiving, now_s)
        with pytest.raises(BodyTimeout, match=r"512 bytes a second.*limits\.body_min_rate"):
            await receiving
        assert 4 <= incoming.received_bytes <= 5
    assert door.nothing_left()


async def _drip(body: Body, receiving: asyncio.Task[int], now_s: list[float]) -> None:
    """Give a byte whenever the one before was taken, and let time pass before each."""
    await turns_until(lambda: body._waiter is not None)
    while not receiving.done():
        now_s[0] += WAIT_S / 4
        body.feed_data(b"1")
        await turns_until(lambda: receiving.done() or not body._size)


@pytest.mark.parametrize("length", [None, 999])
async def test_a_byte_at_a_time_takes_the_memory_of_its_bytes(length: int | None, door: Door) -> None:
    """A body that comes in chunks of one byte is not held in as many objects."""
    body = Body()
    incoming = door.incoming(body, length=length)
    reader = BodyReader(incoming, Pace(0, WAIT_S))
    reading = asyncio.create_task(reader.gather())
    for number in range(999):
        body.feed_data(b"%d" % (number % 10))
        await turns_until(lambda: not body._size)
    body.feed_eof()
    piece = await reading
    assert piece.is_last
    assert len(piece.chunks) == 1
    assert bytes(piece.chunks[0]) == b"".join(b"%d" % (number % 10) for number in range(999))


async def test_chunks_of_every_size_keep_their_order(door: Door) -> None:
    """Tiny chunks between large ones are put together where they stand."""
    sizes = [1, 5, TINY_BYTES, 3, TINY_BYTES + 1, TINY_BYTES - 1, 2]
    chunks = [os.urandom(size) for size in sizes]
    body = Body()
    reading = asyncio.create_task(BodyReader(door.incoming(body), Pace(0, WAIT_S)).gather())
    for chunk in chunks:
        body.feed_data(chunk)
        await turns_until(lambda: not body._size)
    body.feed_eof()
    assert b"".join((await reading).chunks) == b"".join(chunks)


async def test_a_failed_file_is_noted_and_a_good_one_forgets_it(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk refused of a file is a reason not to be ready, until a file is kept again."""
    door.fault._pause_s = 3600.0

    def failing(_: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(disk, "sync", failing)
        with pytest.raises(SpoolFull, match="quota that the file system"):
            await door.intake.receive_file(door.incoming(Body().end(b"x"), SPECIMEN))
    assert "quota" in str(door.fault.current())
    # A report that stays in memory says nothing of the disk's files.
    assert await door.reports(SMALL) == 1
    assert door.fault.current() is not None
    assert await door.intake.receive_file(door.incoming(Body().end(b"x"), SPECIMEN)) == 1
    assert door.fault.current() is None


async def test_pieces_are_handed_on_as_they_come(door: Door) -> None:
    """A large body is on its way to the disk while it still comes: memory holds pieces of it, never the whole."""
    largest = 0
    with pytest.MonkeyPatch.context() as patch:
        write_all = disk.write_all

        def measured(descriptor: int, buffers: list[bytes]) -> int:
            nonlocal largest
            largest = max(largest, sum(len(buffer) for buffer in buffers))
            return write_all(descriptor, buffers)

        patch.setattr(disk, "write_all", measured)
        body = Body()
        receiving = asyncio.create_task(door.intake.receive_file(door.incoming(body, SPECIMEN)))
        for _ in range(100):
            body.feed_data(b"x" * 100_000)
            await turns_until(lambda: not body._size)
        body.feed_eof()
        await receiving
    assert largest < 2 * PIECE_BYTES
    (path,) = door.bench.spool.directories.of(SPECIMEN).glob("*.body")
    assert path.stat().st_size == 10_000_000
    assert names.parse_spool_name(path.name) is not None
