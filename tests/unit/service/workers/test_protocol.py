"""What goes over a channel comes whole, and its end is told as an end."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.schema import Config
from gateway.service.workers import protocol
from gateway.service.workers.protocol import Setup
from testkit.spool import WAIT_S

SETUP = Setup(config=Config(cache_dir=Path("/spool")), columns=3, column=2, layout=7, above=1 << 60, board=5, sockets=(8, 9))


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a channel: the first process's and the worker's."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        # Where a test fails nobody is left who would send more.
        end.settimeout(WAIT_S)
    with ours, theirs:
        yield ours, theirs


async def sent_setup() -> bytes:
    """The bytes that a setup is on a channel."""
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    protocol.send_setup(writer, SETUP)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    with theirs, theirs.makefile("rb") as file:
        return file.read()


async def test_a_setup_comes_in_any_pieces(ends: tuple[socket.socket, socket.socket]) -> None:
    """A setup that comes byte by byte is the one that was sent, and the message behind it is left in the channel."""
    ours, theirs = ends
    told = await sent_setup() + b'{"stop":true}\n'

    def send() -> None:
        for at in range(len(told)):
            ours.sendall(told[at : at + 1])

    sending = threading.Thread(target=send, daemon=True)
    sending.start()
    assert protocol.receive_setup(theirs) == SETUP
    sending.join()
    assert theirs.recv(100) == b'{"stop":true}\n'


@pytest.mark.parametrize("missing", [1, 100, None], ids=["a byte", "more", "all"])
async def test_half_a_setup_is_none(ends: tuple[socket.socket, socket.socket], missing: int | None) -> None:
    """A worker whose first process is gone before the setup is there is told so."""
    ours, theirs = ends
    ours.sendall((await sent_setup())[: -missing if missing else 0])
    ours.close()
    with pytest.raises(EOFError, match="is gone"):
        protocol.receive_setup(theirs)


async def test_messages_come_until_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """Messages come in the order in which they were sent, and half a line at the end is none."""
    ours, theirs = ends
    _, writer = await asyncio.open_connection(sock=ours)
    reader, other = await asyncio.open_connection(sock=theirs)
    for stream in ("usage", "error"):
        protocol.send(writer, {"cut": stream})
    writer.write(b'{"stop"')
    writer.close()
    assert [message async for message in protocol.messages(reader)] == [{"cut": "usage"}, {"cut": "error"}]
    other.close()
    await asyncio.gather(writer.wait_closed(), other.wait_closed())


async def test_a_reset_is_an_end() -> None:
    """A channel that breaks ends the messages as one that is closed does."""
    reader = asyncio.StreamReader()
    reader.feed_data(b'{"ready":true}\n')
    found = protocol.messages(reader)
    assert await anext(found) == {"ready": True}
    reader.set_exception(ConnectionResetError())
    assert [message async for message in found] == []
