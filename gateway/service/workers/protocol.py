"""The messages between the first process and a worker.

First the setup goes to the worker, behind its length. After it either end sends messages, each an object of JSON in a line:

| key | from | value |
|---|---|---|
| `ready` | the worker | true: it accepts requests |
| `committed` | the worker | a stream, of which something can be delivered |
| `cut` | the first process | a stream, whose segment is to be cut |
| `cut` | the worker | a stream, whose segment is cut |
| `degraded` | the first process | what is wrong with the delivery, for `/ready` |
| `reload` | the first process | true: use the certificate that the files hold now |
| `stop` | the first process | take nothing new, and end; for so many seconds requests in flight may go on |
| `stopped` | the worker | true: every request has its answer |
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, cast

import orjson

from gateway.config.schema import Config

LENGTH_BYTES = 4
# No longer message is read, and whoever waits for one fails; what may be long in one is a few reasons, kept short.
MAX_MESSAGE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker is told at its start, before it does anything.

    Attributes:
        config: what is to be done.
        columns: of the board.
        column: of the board, this worker's.
        layout: of the board, which it has to find as well.
        above: every instant that it gives is later than this one.
        board, sockets: descriptors that it has inherited.
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
    board: int
    sockets: tuple[int, ...]
    is_inherited: bool = False
    owner: str = ""
    directories: tuple[tuple[int, int], ...] = ()
    ballast: int = 0


async def open_channel(end: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Use one end of a pair of sockets; it is closed with the writer."""
    return await asyncio.open_connection(sock=end, limit=MAX_MESSAGE_BYTES)


def send_setup(writer: asyncio.StreamWriter, setup: Setup) -> None:
    """Tell a worker at its start what to do."""
    told = pickle.dumps(setup)
    writer.write(len(told).to_bytes(LENGTH_BYTES, "big") + told)


def receive_setup(channel: socket.socket) -> Setup:
    """Wait for what the first process tells, and leave what follows it in the channel; EOFError or OSError if that is gone."""
    with channel.makefile("rb", buffering=0) as file:
        length = int.from_bytes(_exactly(file.read, LENGTH_BYTES), "big")
        # From nobody but the program itself.
        return cast("Setup", pickle.loads(_exactly(file.read, length)))  # noqa: S301


def _exactly(read: Callable[[int], bytes | None], size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = read(size - len(data))
        if not piece:
            raise EOFError("the process that has started this one is gone")
        data += piece
    return data


def send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Tell the process at the other end something, without a wait for it."""
    writer.write(orjson.dumps(message) + b"\n")


async def messages(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """What the process at the other end tells, until it is gone."""
    with contextlib.suppress(ConnectionError):
        # A process that was killed may have left the beginning of a line.
        while (line := await reader.readline()).endswith(b"\n"):
            yield orjson.loads(line)
