"""The messages between the first process and a worker: tagged records, in JSON, a line each.

First the setup goes to the worker, behind its length; after it either end sends messages, and neither waits for an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gateway.config.schema import Config

LENGTH_BYTES = 4
# A longer message is an error; what may be long in one is a few reasons, kept short.
MAX_MESSAGE_BYTES = 1 << 20


class Message(msgspec.Struct, frozen=True, tag=True):
    """What one process sends to the other; its class is its tag."""


class Ready(Message, frozen=True):
    """From a worker: it accepts requests."""


class Committed(Message, frozen=True):
    """From a worker: something of a stream can be delivered."""

    stream: str


class WasCut(Message, frozen=True):
    """From a worker: its segment of a stream is cut."""

    stream: str


class Stopped(Message, frozen=True):
    """From a worker: every request has its response."""


class Cut(Message, frozen=True):
    """To a worker: cut the segment of a stream, and say so."""

    stream: str


class Degraded(Message, frozen=True):
    """To a worker: what is wrong with the delivery, for `/ready`."""

    reasons: list[str]


class Reload(Message, frozen=True):
    """To a worker: use the certificate that the files hold now."""


class Stop(Message, frozen=True):
    """To a worker: take nothing new, and end; requests in flight may go on for so many seconds."""

    timeout_s: float


FromWorker = Ready | Committed | WasCut | Stopped
ToWorker = Cut | Degraded | Reload | Stop


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker receives at its start, before it does anything.

    Attributes:
        config: what is to be done.
        columns: of the counters.
        column: of the counters, this worker's.
        layout: of the counters, which it has to find as well.
        above: every instant that it gives is later than this one.
        counters, sockets: descriptors that it has inherited.
        is_inherited: whether the sockets stay open when the gateway ends.
        owner: in the record of the `cache_dir`, see `spool/owner.py`.
        directories: which those of the `cache_dir` have to be.
        ballast: bytes of it, see `spool/ballast.py`.
    """

    config: Config
    columns: int
    column: int
    layout: int
    above: int
    counters: int
    sockets: tuple[int, ...]
    is_inherited: bool = False
    owner: str = ""
    directories: tuple[tuple[int, int], ...] = ()
    ballast: int = 0


async def open_channel(end: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Use one end of a pair of sockets; it is closed with the writer."""
    return await asyncio.open_connection(sock=end, limit=MAX_MESSAGE_BYTES)


def encoded(setup: Setup) -> bytes:
    """What a worker is sent first: what it is to do, behind its length."""
    data = msgspec.msgpack.encode(setup, enc_hook=_plain)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def receive_setup(channel: socket.socket) -> Setup:
    """Wait for what the first process sends, and leave what follows it in the channel; EOFError or OSError if that is gone."""
    with channel.makefile("rb", buffering=0) as file:
        length = int.from_bytes(_exactly(file.read, LENGTH_BYTES), "big")
        return msgspec.msgpack.decode(_exactly(file.read, length), type=Setup, dec_hook=_made)


def _plain(value: object) -> object:
    if isinstance(value, Path):
        # A path is bytes, and need not be UTF-8.
        return os.fsencode(value)
    raise NotImplementedError(type(value).__name__)


def _made(wanted: type, value: Any) -> Any:
    if issubclass(wanted, Path):
        return Path(os.fsdecode(value))
    raise NotImplementedError(wanted.__name__)


def _exactly(read: Callable[[int], bytes | None], size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = read(size - len(data))
        if not piece:
            raise EOFError("the process that has started this one is gone")
        data += piece
    return data


def send(writer: asyncio.StreamWriter, message: Message) -> None:
    """Send a message to the process at the other end, without a wait for it."""
    writer.write(msgspec.json.encode(message) + b"\n")


async def from_worker(reader: asyncio.StreamReader) -> AsyncIterator[FromWorker]:
    """What a worker sends, until it is gone."""
    decode = msgspec.json.Decoder[FromWorker](FromWorker).decode
    async for line in _lines(reader):
        yield decode(line)


async def to_worker(reader: asyncio.StreamReader) -> AsyncIterator[ToWorker]:
    """What the first process sends, until it is gone."""
    decode = msgspec.json.Decoder[ToWorker](ToWorker).decode
    async for line in _lines(reader):
        yield decode(line)


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    with contextlib.suppress(ConnectionError):
        # A process that was killed may have left the beginning of a line.
        while (line := await reader.readline()).endswith(b"\n"):
            yield line
