"""What goes over a channel comes whole, and its end is told as an end."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.schema import AwsKeys, Config, ListenKeys, ServerKeys, StreamKeys
from gateway.service.workers import protocol
from gateway.service.workers.protocol import Committed, Cut, Degraded, Message, Ready, Reload, Setup, Stop, Stopped, WasCut
from testkit.spool import WAIT_S

SETUP = Setup(
    config=Config(cache_dir=Path(os.fsdecode(b"/spool/\xff"))),
    columns=3,
    column=2,
    layout=7,
    above=1 << 60,
    counters=5,
    sockets=(8, 9),
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a channel: the first process's and the worker's."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        # Where a test fails nobody is left who would send more.
        end.settimeout(WAIT_S)
    with ours, theirs:
        yield ours, theirs


async def test_a_setup_comes_in_any_pieces(ends: tuple[socket.socket, socket.socket]) -> None:
    """A setup that comes byte by byte is the one that was sent, and the message behind it is left in the channel."""
    ours, theirs = ends
    told = protocol.encoded(SETUP) + b'{"stop":true}\n'

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
    ours.sendall(protocol.encoded(SETUP)[: -missing if missing else 0])
    ours.close()
    with pytest.raises(EOFError, match="is gone"):
        protocol.receive_setup(theirs)


async def test_messages_come_until_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """Messages come in the order in which they were sent, and half a line at the end is none."""
    ours, theirs = ends
    _, writer = await asyncio.open_connection(sock=ours)
    reader, other = await asyncio.open_connection(sock=theirs)
    for stream in ("usage", "error"):
        protocol.send(writer, Cut(stream))
    writer.write(b'{"type"')
    writer.close()
    assert [message async for message in protocol.to_worker(reader)] == [Cut("usage"), Cut("error")]
    other.close()
    await asyncio.gather(writer.wait_closed(), other.wait_closed())


async def test_a_reset_is_an_end() -> None:
    """A channel that breaks ends the messages as one that is closed does."""
    reader = asyncio.StreamReader()
    reader.feed_data(b'{"type":"Ready"}\n')
    found = protocol.from_worker(reader)
    assert await anext(found) == Ready()
    reader.set_exception(ConnectionResetError())
    assert [message async for message in found] == []


FROM_WORKER: list[Message] = [Ready(), Committed("usage"), WasCut("error"), Stopped()]
TO_WORKER: list[Message] = [Cut("usage"), Degraded(["usage: away"]), Reload(), Stop(1.5)]


@pytest.mark.parametrize(
    ("sent", "read"), [(FROM_WORKER, protocol.from_worker), (TO_WORKER, protocol.to_worker)], ids=["from a worker", "to a worker"]
)
async def test_every_message_comes_as_it_was_sent(
    ends: tuple[socket.socket, socket.socket],
    sent: list[Message],
    read: Callable[[asyncio.StreamReader], AsyncIterator[Message]],
) -> None:
    """Each kind of message is known by its tag at the other end, with what is in it."""
    ours, theirs = ends
    _, writer = await asyncio.open_connection(sock=ours)
    reader, other = await asyncio.open_connection(sock=theirs)
    for message in sent:
        protocol.send(writer, message)
    writer.close()
    assert [message async for message in read(reader)] == sent
    other.close()
    await asyncio.gather(writer.wait_closed(), other.wait_closed())


def test_a_setup_has_all_of_a_configuration() -> None:
    """Paths, which need not be UTF-8, several addresses, streams and secrets are the same on the other side."""
    config = Config(
        cache_dir=Path(os.fsdecode(b"/spool/\xff")),
        listen=ListenKeys(host=("::1", "127.0.0.1"), unix=Path("/run/a.sock")),
        server=ServerKeys(workers="auto"),
        aws=AwsKeys(secret_access_key="secret"),
        streams=(StreamKeys("crash", form="files", max_body=5), StreamKeys("audit", form="reports", interval=1.5)),
    )
    setup = replace(SETUP, config=config, directories=((1, 2), (3, 4)))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(protocol.encoded(setup))
        assert protocol.receive_setup(theirs) == setup
