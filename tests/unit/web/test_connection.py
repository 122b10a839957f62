"""What a client that reads nothing costs has an end; everything else of a connection is told by the tests of the web."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from gateway.web.connection import Connection, Server
from testkit.spool import WAIT_S


class Transport(asyncio.Transport):
    """A far end that has so much left to read each time it is asked."""

    def __init__(self, *unread: int) -> None:
        super().__init__()
        self._unread = iter(unread)
        self.aborted = asyncio.Event()

    def get_write_buffer_size(self) -> int:
        return next(self._unread)

    def is_closing(self) -> bool:
        return self.aborted.is_set()

    def close(self) -> None:
        """Nothing: with bytes left to be read a closed connection goes on."""

    def abort(self) -> None:
        self.aborted.set()


async def _never(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("nothing was asked")


async def paused(transport: Transport) -> Connection:
    """A connection whose answers are not read."""
    settings: dict[str, Any] = {"answer_malformed": None, "keepalive_timeout": 0.01}
    connection = Server(_never, Connection, **settings)()
    connection.connection_made(transport)
    connection.pause_writing()
    return connection


async def test_who_reads_slowly_has_more_time() -> None:
    """As long as less is left each time, the client is waited for; once nothing was read it is let go."""
    transport = Transport(100, 90, 90, 80, 80, 80)
    connection = await paused(transport)
    async with asyncio.timeout(WAIT_S):
        await transport.aborted.wait()
    # Asked twice each time: what is left since, and from what on.
    assert next(transport._unread, None) is None
    connection.connection_lost(None)


async def test_who_reads_again_is_kept() -> None:
    """Once it can be written again nothing is waited for."""
    transport = Transport(100, 100)
    connection = await paused(transport)
    connection.resume_writing()
    assert connection._unread is None
    connection.connection_lost(None)
