"""Clients that mind no rule: they send what they like, in what pieces they like, and keep all that comes back."""

from __future__ import annotations

import random
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from testkit.deadlines import TIMEOUT_FACTOR

DEADLINE_S = 30.0
_CHUNK_BYTES = 1 << 16
_LONGEST_IN_BYTES = 600


@dataclass(frozen=True)
class Heard:
    """One answer, read from the bytes of a connection."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def answers_in(data: bytes) -> tuple[list[Heard], bytes]:
    """All answers that stand in the bytes, interim ones left out, and what of the bytes is no whole answer."""
    heard: list[Heard] = []
    while (end := data.find(b"\r\n\r\n")) >= 0:
        first, *fields = data[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in fields)}
        version, _, rest = first.partition(" ")
        if not version.startswith("HTTP/") or not rest[:3].isdigit():
            break
        status = int(rest[:3])
        size = 0 if status < 200 or status == 204 else int(headers.get("content-length", "0"))
        if len(data) < end + 4 + size:
            break
        body, data = data[end + 4 : end + 4 + size], data[end + 4 + size :]
        if status >= 200:
            heard.append(Heard(status, headers, body))
    return heard, data


def pieces(data: bytes, chance: random.Random, most: int = 8) -> Iterator[bytes]:
    """The data in one piece, in every byte by itself where it is short, or cut anywhere."""
    way = chance.choice(("whole", "bytes", "cut"))
    cuts: list[int] = []
    if way == "bytes" and len(data) <= _LONGEST_IN_BYTES:
        cuts = list(range(1, len(data)))
    elif way != "whole":
        cuts = sorted(chance.sample(range(1, len(data)), min(most, len(data) - 1)))
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        yield data[start:end]


class Wild:
    """One connection. Nothing that the gateway does to it is an error: it is what is to be seen.

    Args:
        port: of the gateway.
        receive_bytes: how much may come that is not read; 0 for what the system gives.
    """

    def __init__(self, port: int, *, receive_bytes: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(DEADLINE_S * TIMEOUT_FACTOR)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", port))
        # Each piece is a packet of its own, as far as that is for a client to say.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.was_reset = False

    def __enter__(self) -> Wild:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send; false if the gateway has closed the connection meanwhile."""
        try:
            self.socket.sendall(data)
        except ConnectionError:
            return False
        return True

    def half_close(self) -> None:
        """Say that nothing more comes, and go on reading."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            # It is closed already; what was answered can still be read.
            return

    def hear(self) -> bytes:
        """Everything that comes until the gateway closes the connection; `TimeoutError` if it never does."""
        data = b""
        try:
            while chunk := self.socket.recv(_CHUNK_BYTES):
                data += chunk
        except ConnectionResetError:
            self.was_reset = True
        return data

    def begin_of_answer(self, size: int) -> bytes:
        """The first bytes that come, and no more than that."""
        try:
            return self.socket.recv(size, socket.MSG_WAITALL)
        except ConnectionResetError:
            return b""

    def reset(self) -> None:
        """Go away without a word, as a machine that loses its power or its network does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


# --- one byte a second ---------------------------------------------------------------------------------------------


@dataclass
class Dripper:
    """A connection on which a byte is sent each second.

    Attributes:
        kind: what it is that drips.
        at_once: what is sent first, whole.
        drops: what is sent a byte a second; after it nothing is sent.
        contents: what the gateway holds once it has taken it.
        heard: all that came back.
        ended_after_s: seconds until the gateway closed it; None while it is open.
    """

    kind: str
    at_once: bytes
    drops: bytes
    contents: tuple[bytes, ...] = ()
    heard: bytes = b""
    ended_after_s: float | None = None
    _sent: int = 0
    _socket: socket.socket | None = field(default=None, repr=False)

    def connect(self, port: int) -> socket.socket:
        """Connect and send what is sent at once."""
        self._socket = socket.create_connection(("127.0.0.1", port), DEADLINE_S * TIMEOUT_FACTOR)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(self.at_once)
        self._socket.setblocking(False)
        return self._socket

    @property
    def is_whole(self) -> bool:
        """Whether everything was sent."""
        return self._sent == len(self.drops)

    def drop(self) -> None:
        """Send the next byte."""
        if self._socket is not None and self.ended_after_s is None and not self.is_whole:
            try:
                self._sent += self._socket.send(self.drops[self._sent : self._sent + 1])
            except OSError:
                # Closed, which the reading of it will tell.
                return

    def take(self, seconds: float) -> bool:
        """Read what is there; false once the gateway has closed it."""
        assert self._socket is not None  # only a connected one can be read
        try:
            chunk = self._socket.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            chunk = b""
        self.heard += chunk
        if not chunk:
            self.ended_after_s = seconds
        return bool(chunk)

    def close(self) -> None:
        """Go away."""
        if self._socket is not None:
            self._socket.close()


def drip(port: int, drippers: Sequence[Dripper], seconds: float, meanwhile: Callable[[], None]) -> None:
    """Let all drip for so long, then close those that are open; `meanwhile` is called once they have begun."""
    with selectors.DefaultSelector() as selector:
        began = time.monotonic()
        try:
            for dripper in drippers:
                selector.register(dripper.connect(port), selectors.EVENT_READ, dripper)
            for tick in range(round(seconds)):
                if tick == 2:
                    meanwhile()
                for dripper in drippers:
                    dripper.drop()
                # The second between two bytes is the fault itself.
                while (left := began + tick + 1 - time.monotonic()) > 0:
                    for key, _ in selector.select(left):
                        if not key.data.take(time.monotonic() - began):
                            selector.unregister(key.fileobj)
        finally:
            for dripper in drippers:
                dripper.close()
