"""A proxy in front of a real S3 server that makes faults on purpose; what it lets through, it lets through byte for byte.

A fault is a coroutine that is given one exchange and does with it what a bad network or a bad day of the store would do.
The Host header stays what the client sent, since the signature covers it and the store knows itself by no name.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from integration.minio import TIMEOUT_FACTOR, Minio, free_port

_END = b"\r\n\r\n"
_DATE = "%Y%m%dT%H%M%SZ"


# --- one request and its answer ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Request:
    """The head of a request, as it came.

    Attributes:
        operation: S3's name of it: `PutObject`, `UploadPart`.
        headers: names in lower case.
    """

    head: bytes
    operation: str
    bucket: str
    key: str
    headers: Mapping[str, str]

    @classmethod
    def parse(cls, head: bytes) -> Request:
        """Read a head, its empty line included."""
        first, *lines = head.removesuffix(_END).decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        bucket, _, key = unquote(path).removeprefix("/").partition("/")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return cls(head, _operation(method, query), bucket, key, headers)


def _operation(method: str, query: str) -> str:
    names = {item.partition("=")[0] for item in query.split("&")}
    match method:
        case "PUT":
            return "UploadPart" if "partNumber" in names else "PutObject"
        case "POST":
            return "CreateMultipartUpload" if "uploads" in names else "CompleteMultipartUpload"
        case "DELETE":
            return "AbortMultipartUpload"
    return {"HEAD": "HeadObject"}.get(method, method)


@dataclass
class Record:
    """What came of one exchange: the status that the store gave and the one that the client was told, 0 for none."""

    operation: str
    bucket: str
    key: str
    stored: int = 0
    told: int = 0

    @property
    def is_unheard(self) -> bool:
        """Whether the store did it and the client was not told so."""
        return 200 <= self.stored < 300 and self.told != self.stored


class Exchange:
    """One request, and what a fault can do with it."""

    def __init__(self, proxy: FaultProxy, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.request = request
        self.record = Record(request.operation, request.bucket, request.key)
        self._reader, self._writer = reader, writer
        self._body: bytes | None = None

    @property
    def is_last(self) -> bool:
        """Whether no other request can come on this connection."""
        return self._body is None or self._writer.is_closing()

    async def body(self) -> bytes:
        """Take the whole body from the client, who is told to go on where it waits for that."""
        if self._body is None:
            self._body = await self._take(int(self.request.headers.get("content-length", 0)))
        return self._body

    async def _take(self, size: int) -> bytes:
        assert "transfer-encoding" not in self.request.headers, "a request in chunks is none that the gateway makes"
        if self.request.headers.get("expect", "").lower() == "100-continue":
            self._writer.write(b"HTTP/1.1 100 Continue" + _END)
        return await self._reader.readexactly(size)

    async def forward(self, head: bytes | None = None) -> bytes:
        """Have the store do it, with this head or its own, and return the answer, whole and untouched."""
        body = await self.body()
        reader, writer = await asyncio.open_connection(*self.proxy.store)
        try:
            writer.write((head or self.request.head) + body)
            await writer.drain()
            answer = await _read_answer(reader, has_body=self.request.operation != "HeadObject")
        finally:
            writer.close()
        self.record.stored = _status(answer)
        return answer

    async def answer(self, answer: bytes) -> None:
        """Answer the client."""
        self.record.told = _status(answer)
        self._writer.write(answer)
        await self._writer.drain()

    async def spill(self) -> None:
        """Give the store one half of the request, and break both connections."""
        half = await self._take(int(self.request.headers.get("content-length", 0)) // 2)
        _, writer = await asyncio.open_connection(*self.proxy.store)
        writer.write(self.request.head + half)
        await writer.drain()
        _reset(writer)
        self.reset()

    async def wait_until_gone(self) -> None:
        """Say nothing until the client gives up."""
        while await self._reader.read(1 << 16):
            continue
        self._writer.close()

    def reset(self) -> None:
        """Break the connection to the client."""
        _reset(self._writer)


async def _read_answer(reader: asyncio.StreamReader, *, has_body: bool) -> bytes:
    head = await reader.readuntil(_END)
    status, lower = _status(head), head.lower()
    if status < 200:
        # The client has been told to go on before.
        return await _read_answer(reader, has_body=has_body)
    if not has_body or status in (204, 304):
        return head
    if b"\r\ntransfer-encoding: chunked\r\n" in lower:
        return head + await _read_chunks(reader)
    length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", lower)
    return head + (await reader.readexactly(int(length[1])) if length else await reader.read())


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    found, size = b"", 1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        found += line + (await reader.readexactly(size + 2) if size else b"")
    # What may follow the last chunk ends with an empty line.
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        found += line
    return found


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _reset(writer: asyncio.StreamWriter) -> None:
    # With no time to linger the kernel sends a reset, and not an orderly end.
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# --- faults ------------------------------------------------------------------------------------------------------

Fault = Callable[[Exchange], Awaitable[None]]


async def passed(exchange: Exchange) -> None:
    """Nothing goes wrong."""
    await exchange.answer(await exchange.forward())


def answered(status: int, code: str, *, done: bool = False, early: bool = False) -> Fault:
    """An error of S3: in place of the request or, if `done`, of its answer; `early` before the body is taken, as S3 does."""

    async def fault(exchange: Exchange) -> None:
        if done:
            await exchange.forward()
        elif not early:
            await exchange.body()
        await exchange.answer(_error(status, code, has_body=exchange.request.operation != "HeadObject"))

    return fault


def broken(*, done: bool = False) -> Fault:
    """The connection is reset, before the store sees the request or, if `done`, in place of the answer."""

    async def fault(exchange: Exchange) -> None:
        await (exchange.forward() if done else exchange.body())
        exchange.reset()

    return fault


def stalled(*, done: bool = False) -> Fault:
    """No answer comes, whether or not the store has seen the request."""

    async def fault(exchange: Exchange) -> None:
        await (exchange.forward() if done else exchange.body())
        await exchange.wait_until_gone()

    return fault


async def spilled(exchange: Exchange) -> None:
    """The connections break in the middle of the body."""
    await exchange.spill()


async def torn(exchange: Exchange) -> None:
    """The store does it, and the connection breaks in the middle of the head of its answer."""
    answer = await exchange.forward()
    await exchange.answer(answer[: len(answer.partition(_END)[0]) // 2])
    # Half of a head tells nothing.
    exchange.record.told = 0
    exchange.reset()


def late(tell: Fault, *, conflicts: int = 0, after: bool = False) -> Fault:
    """The client is told of a failure, and the store does it all the same, when the next request for that key has begun.

    Args:
        tell: how the client learns of the failure.
        conflicts: so many requests for the key are answered with 409 before, as S3 does while the first one still runs.
        after: do it when that next request has been answered.
    """

    async def fault(exchange: Exchange) -> None:
        await exchange.body()
        exchange.proxy.hold(exchange, conflicts=conflicts, after=after)
        await tell(exchange)

    return fault


def unconditional(*, lost: bool = False) -> Fault:
    """The store does not know `If-None-Match` and replaces what it has; its answer may be lost besides."""

    async def fault(exchange: Exchange) -> None:
        head = re.sub(rb"(?i)\r\nif-none-match:[^\r]*", b"", exchange.request.head)
        answer = await exchange.forward(resigned(head, exchange.proxy.secret_key))
        if lost:
            exchange.reset()
        else:
            await exchange.answer(answer)

    return fault


def skewed(by: timedelta) -> Fault:
    """The clock of the client is wrong by so much; the store itself says what it thinks of that."""

    async def fault(exchange: Exchange) -> None:
        then = datetime.strptime(exchange.request.headers["x-amz-date"], _DATE) + by  # noqa: DTZ007 (both ends are UTC)
        head = re.sub(rb"(?i)(\r\nx-amz-date: *)[^\r]*", rb"\g<1>" + then.strftime(_DATE).encode(), exchange.request.head)
        await exchange.answer(await exchange.forward(resigned(head, exchange.proxy.secret_key)))

    return fault


async def forgotten(exchange: Exchange) -> None:
    """The store gives no metadata back."""
    await exchange.answer(re.sub(rb"(?i)\r\nx-amz-meta-[^\r]*", b"", await exchange.forward()))


def at_random(source: random.Random, chance: float, choice: Callable[[Request], Sequence[Fault]]) -> Fault:
    """One of the faults that the request may meet, with this probability."""

    async def fault(exchange: Exchange) -> None:
        unlucky = source.random() < chance
        await (source.choice(choice(exchange.request)) if unlucky else passed)(exchange)

    return fault


def _error(status: int, code: str, *, has_body: bool) -> bytes:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>on purpose</Message></Error>'
    # S3 ends the connection of a request that it has not read.
    head = f"HTTP/1.1 {status} on purpose\r\nContent-Type: application/xml\r\nContent-Length: {len(body) * has_body}"
    return head.encode() + _END + body.encode() * has_body


def resigned(head: bytes, secret_key: str) -> bytes:
    """The head with a signature that fits what it says now; signed are the headers that were, where they are still there."""
    request = Request.parse(head)
    scope, signed = re.findall(r"(?:Credential=[^/]+/|SignedHeaders=)([^,]+)", request.headers["authorization"])
    names = [name for name in signed.split(";") if name in request.headers]
    date = request.headers["x-amz-date"]
    new_scope = "/".join([date[:8], *scope.split("/")[1:]])
    method, target = head.decode("latin-1").split(" ", 2)[:2]
    path, _, query = target.partition("?")
    parameters = sorted(item if "=" in item else f"{item}=" for item in query.split("&") if item)
    headers = [f"{name}:{request.headers[name]}" for name in names]
    canonical = [method, path, "&".join(parameters), *headers, "", ";".join(names), request.headers["x-amz-content-sha256"]]
    digest = hashlib.sha256("\n".join(canonical).encode()).hexdigest()
    key = f"AWS4{secret_key}".encode()
    for part in new_scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{date}\n{new_scope}\n{digest}".encode(), "sha256").hex()
    head = head.replace(scope.encode(), new_scope.encode()).replace(signed.encode(), ";".join(names).encode())
    return re.sub(rb"Signature=[0-9a-f]+", b"Signature=" + signature.encode(), head)


# --- which request meets which -----------------------------------------------------------------------------------


class _Held:
    """A request that is kept back until somebody wants it done."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._doing: asyncio.Task[None] | None = None

    async def done(self) -> None:
        """Return when the store has done it, which it does once."""
        if self._doing is None:
            self._doing = asyncio.create_task(self._do())
        await asyncio.shield(self._doing)

    async def abandoned(self) -> None:
        """Return when nothing is done of it any more."""
        if self._doing is not None:
            self._doing.cancel()
            await asyncio.gather(self._doing, return_exceptions=True)

    async def _do(self) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._exchange.forward()


@dataclass
class Rule:
    """A fault, and who meets it.

    Attributes:
        operations: of these names; none means all.
        times: so many requests for each key, the first ones; None for every request.
        only: bucket and key, where it is for one object alone.
        most: so many requests in all.
        met: how many requests have met it.
    """

    fault: Fault
    operations: tuple[str, ...] = ()
    times: int | None = None
    only: tuple[str, str] | None = None
    most: int | None = None
    met: int = 0
    _of_key: Counter[tuple[str, str]] = field(default_factory=Counter)

    def takes(self, request: Request) -> bool:
        """Whether this request meets it, which is counted."""
        where = request.bucket, request.key
        if (self.operations and request.operation not in self.operations) or self.only not in (None, where):
            return False
        if (self.times is not None and self._of_key[where] >= self.times) or self.met == self.most:
            return False
        self._of_key[where] += 1
        self.met += 1
        return True


class FaultProxy:
    """The proxy, in a thread of its own, between the first and the last line of a with-block.

    Attributes:
        store: host and port of the real one.
        endpoint: where the proxy listens; the port stays, also while it refuses connections.
        records: what came of each exchange.
        defects: what the proxy itself did wrong, which no row may take for a fault of the gateway.
    """

    def __init__(self, minio: Minio) -> None:
        where = urlsplit(minio.endpoint)
        self.store = (where.hostname or "", where.port or 0)
        self.secret_key = minio.secret_key
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        self.records: list[Record] = []
        self.defects: list[str] = []
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._held: list[_Held] = []
        self._clients: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self.accept()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._done(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10 * TIMEOUT_FACTOR)
        self._loop.close()

    # --- for rows ---------------------------------------------------------------------------------------------------

    def add(self, *rules: Rule) -> None:
        """Have these hold from now on; of several that take a request the first one does."""
        with self._lock:
            self._rules += rules

    def clear(self) -> None:
        """Let everything through from now on, but for what has begun."""
        with self._lock:
            self._rules.clear()

    def refuse(self) -> None:
        """Listen no more, and break every connection."""
        self._done(self._refuse())

    def accept(self) -> None:
        """Listen."""
        self._done(self._accept())

    def release(self) -> None:
        """Have the store do what is still held back."""
        self._done(self._release())

    def unheard(self, operation: str) -> int:
        """How many of these the store did without the client being told so."""
        return sum(record.is_unheard for record in self.records if record.operation == operation)

    def hold(self, exchange: Exchange, *, conflicts: int, after: bool) -> None:
        """Keep a request until another one for the key comes; for `late`."""
        held = _Held(exchange)

        async def overtaken(other: Exchange) -> None:
            if after:
                await passed(other)
                await held.done()
            else:
                await asyncio.gather(passed(other), held.done())

        self._held.append(held)
        only = exchange.request.bucket, exchange.request.key
        busy = Rule(answered(409, "ConditionalRequestConflict"), ("PutObject", "CompleteMultipartUpload"), conflicts, only)
        with self._lock:
            self._rules[:0] = [busy, Rule(overtaken, times=1, only=only)]

    # --- in its thread ----------------------------------------------------------------------------------------------

    def _done(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30 * TIMEOUT_FACTOR)

    async def _accept(self) -> None:
        if self._server is None:
            port = urlsplit(self.endpoint).port
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=1 << 20)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._clients):
            _reset(writer)

    async def _release(self) -> None:
        # Those too that are being done.
        await asyncio.gather(*(held.done() for held in self._held))
        self._held.clear()

    async def _close(self) -> None:
        await self._refuse()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, *(held.abandoned() for held in self._held), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._clients.add(writer)
        try:
            while await self._exchange(reader, writer):
                continue
        except (OSError, asyncio.IncompleteReadError):
            # One of the two went away, and the other one learns of it.
            _reset(writer)
        except Exception as error:  # noqa: BLE001 (told by the row)
            self.defects.append(repr(error))
        finally:
            self._serving.discard(task)
            self._clients.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        exchange = Exchange(self, Request.parse(await reader.readuntil(_END)), reader, writer)
        self.records.append(exchange.record)
        with self._lock:
            rule = next((rule for rule in self._rules if rule.takes(exchange.request)), None)
        await (passed if rule is None else rule.fault)(exchange)
        return not exchange.is_last
