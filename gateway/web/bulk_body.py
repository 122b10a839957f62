"""A large plain body: read from its socket straight into a buffer of ours, past the parser and its copies.

While a body of known length is on its way there is nothing to parse on its connection. For that time `LargeBody` is the
connection's protocol: it never offers more room than the body has bytes to come, and gives the connection back after the
last of them, with a new parser, since the old one has missed what went past it. All other calls of the transport go to the
connection as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

from aiohttp import StreamReader

# A shorter body is not worth the turn.
LARGE_BYTES = 1 << 20
_FORGOTTEN_BYTES = 64 * 1024


class LargeBody(asyncio.BufferedProtocol):
    """A body of known length, without codings, on a connection without TLS.

    From the first `read_into` on everything of it must be read here. At the end of the `with` block what has not been read
    is forgotten as it comes, as long as the connection waits for it.

    Args:
        owner: the connection's protocol.
        transport: the connection's.
        content: where the parser puts what it still sees of the body; its end is fed to it.
        length: bytes of the whole body.
        parse_anew: called when the next byte that comes begins a request.
    """

    def __init__(
        self,
        owner: asyncio.Protocol,
        transport: asyncio.Transport,
        content: StreamReader,
        length: int,
        parse_anew: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._parse_anew = parse_anew
        self._transport = transport
        self._content = content
        self._length = length
        # To come here; None as long as the parser gets it.
        self._left: int | None = None
        self._is_lost = False
        self._target: memoryview | None = None
        self._arrived: asyncio.Future[int] | None = None
        # What arrived just when the wait for it was given up.
        self._early = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._left:
            self._transport.resume_reading()

    async def read_into(self, target: memoryview) -> memoryview:
        """Put what comes next at the begin of `target`, and return that part of it; it is empty at the end of the body.

        Where the wait for it is given up, nothing is lost: the next call goes on.

        Raises:
            ConnectionError: the client is gone; or what else the connection says of its end.
        """
        if self._left is None:
            parsed = self._content.read_nowait(len(target))
            if parsed:
                target[: len(parsed)] = parsed
                return target[: len(parsed)]
            self._left = self._take_over()
        if self._early:
            early, self._early = self._early[: len(target)], self._early[len(target) :]
            target[: len(early)] = early
            return target[: len(early)]
        if not self._left:
            return target[:0]
        if self._is_lost or self._transport.is_closing():
            raise self._content.exception() or ConnectionResetError("the connection is closed")
        self._target = target[: self._left]
        self._arrived = asyncio.get_running_loop().create_future()
        self._transport.resume_reading()
        try:
            return target[: await self._arrived]
        except asyncio.CancelledError:
            # The reader may come back with another target: nothing of the body is forgotten meanwhile.
            if self._arrived.done() and not self._arrived.cancelled() and self._arrived.exception() is None:
                self._early += bytes(target[: self._arrived.result()])
            elif self._left:
                self._transport.pause_reading()
            raise
        finally:
            self._target = self._arrived = None

    def _take_over(self) -> int:
        """Have everything that is still to come arrive here, and return how much that is."""
        left = self._length - self._content.total_bytes
        if left:
            self._transport.pause_reading()
            self._transport.set_protocol(self)
        return left

    def _give_back(self) -> None:
        self._parse_anew()
        self._transport.set_protocol(self._owner)
        # This has the connection read on, too.
        self._content.feed_eof()

    # --- calls of the transport -------------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go, and never one behind the body."""
        if self._target is not None:
            return self._target
        return memoryview(bytearray(min(self._left or 0, _FORGOTTEN_BYTES)))

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes have come: nothing more is read before they are taken."""
        assert self._left is not None  # called only after `_take_over`
        self._left -= nbytes
        if self._arrived is not None:
            target, self._target = self._target, None
            self._transport.pause_reading()
            if not self._arrived.done():
                self._arrived.set_result(nbytes)
            elif target is not None:
                # The wait was given up in this very turn of the loop, and the reader does not know yet what has come.
                self._early += bytes(target[:nbytes])
        if not self._left:
            self._give_back()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone in the middle of the body."""
        self._is_lost = True
        self._owner.connection_lost(exc)
        if self._arrived is not None and not self._arrived.done():
            # Whatever the network says of it: some of that is called a timeout, and no client was silent too long.
            self._arrived.set_exception(ConnectionResetError(str(exc or "the connection is closed")))

    def eof_received(self) -> bool | None:
        """The client says that nothing more comes, in the middle of the body."""
        return self._owner.eof_received()

    def pause_writing(self) -> None:
        """The client does not read what it is answered."""
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._owner.resume_writing()
