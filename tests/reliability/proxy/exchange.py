"""One request to the store, and its answer, in the hands of a fault."""

from __future__ import annotations

import asyncio
import re
import select
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote

END = b"\r\n\r\n"


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
        first, *lines = head.removesuffix(END).decode("latin-1").split("\r\n")
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
        case "GET" if "uploadId" in names:
            return "ListParts"
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


class Proxy(Protocol):
    """The proxy, as its exchanges know it."""

    store: tuple[str, int]
    secret_key: str

    def hold(self, exchange: Exchange, *, conflicts: int, after: bool) -> None:
        """Keep a request until another one for the key comes."""
        ...


class Exchange:
    """One request, and what a fault can do with it."""

    def __init__(self, proxy: Proxy, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            self._writer.write(b"HTTP/1.1 100 Continue" + END)
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
        self.record.stored = status_of(answer)
        return answer

    async def answer(self, answer: bytes) -> None:
        """Answer the client."""
        self.record.told = status_of(answer)
        self._writer.write(answer)
        await self._writer.drain()

    async def spill(self) -> None:
        """Give the store one half of the request, and break both connections."""
        half = await self._take(int(self.request.headers.get("content-length", 0)) // 2)
        _, writer = await asyncio.open_connection(*self.proxy.store)
        writer.write(self.request.head + half)
        await writer.drain()
        reset(writer)
        self.reset()

    async def take_some(self) -> None:
        """Ask for the body, and take no more of it than the kernel does, until the client gives up."""
        self._writer.write(b"HTTP/1.1 100 Continue" + END)
        transport = self._writer.transport
        assert isinstance(transport, asyncio.ReadTransport)
        transport.pause_reading()
        # A connection that is not read from does not tell of its end.
        error = select.POLLHUP | select.POLLERR | select.POLLRDHUP
        poll = select.poll()
        poll.register(self._writer.get_extra_info("socket"), error)
        while not poll.poll(0):  # noqa: ASYNC110 (the kernel tells nobody)
            await asyncio.sleep(0.05)
        self._writer.close()

    async def wait_until_gone(self) -> None:
        """Say nothing until the client gives up."""
        while await self._reader.read(1 << 16):
            continue
        self._writer.close()

    def reset(self) -> None:
        """Break the connection to the client."""
        reset(self._writer)


async def _read_answer(reader: asyncio.StreamReader, *, has_body: bool) -> bytes:
    head = await reader.readuntil(END)
    status, lower = status_of(head), head.lower()
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


def status_of(answer: bytes) -> int:
    """The status of an answer."""
    return int(answer.split(b" ", 2)[1])


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection."""
    # With no time to linger the kernel sends a reset, and not an orderly end.
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
