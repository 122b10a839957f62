"""The decoding of request bodies, piece by piece, in memory that does not grow with them.

The stdlib's zlib inflates here, not the faster isal that writes the batches: isal 1.9.1 calls a sound gzip stream
corrupt when a chunk ends inside a header that has a checksum, or both an extra field and a name, and where chunks end
is the network's choice.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from backports import zstd

from gateway.core.errors import BadRequest, TooLarge, UnsupportedEncoding

PIECE_BYTES: Final = 256 << 10
# The greatest window that RFC 9659 allows in a Content-Encoding, and so the most memory that a zstd body takes. The
# levels to 19 keep to it; `--ultra -20` and above and `--long` pass it when the body is larger than 8 MiB.
ZSTD_WINDOW_LOG: Final = 23
_WINDOW_BYTES: Final = {"gzip": 32 << 10, "deflate": 32 << 10, "zstd": 1 << ZSTD_WINDOW_LOG}
MAX_CODINGS: Final = 2
# Opening a member costs far more than the few bytes that ask for it: 18 microseconds for a zstd frame of 9 bytes. So a body
# may have this many, which is a fifth of a second, and one more for each so many bytes that came out: a file of bgzip's has
# a member for every 64 KiB. Of empty ones, which such files have at their ends, there may be fewer.
MAX_MEMBERS: Final = 10_000
MEMBER_BYTES: Final = 16 << 10
MAX_EMPTY_MEMBERS: Final = 1_000
# What an answer of 415 offers in its Accept-Encoding.
ACCEPT_ENCODING: Final = "gzip, deflate, zstd"

_BEHIND: Final = b"\0\r\n"
# zlib copies the unread rest of its input at every call, so what it is given at once is kept short.
_INPUT_BYTES: Final = 64 << 10


def decoder(content_encoding: str, max_bytes: int) -> Decoder:
    """Choose the decoder for a Content-Encoding header, which may be empty.

    Args:
        content_encoding: the codings in the order in which they were applied, separated by commas.
        max_bytes: how many decoded bytes are let through.

    Raises:
        UnsupportedEncoding: a coding is unknown, or there are more than MAX_CODINGS.
    """
    named = [name.strip().lower() for name in content_encoding.split(",")]
    codings = [name.removeprefix("x-") if name == "x-gzip" else name for name in named if name not in ("", "identity")]
    for name in codings:
        if name not in _MEMBERS:
            raise UnsupportedEncoding(f"Content-Encoding {name[:40]!a} is not understood; use {ACCEPT_ENCODING} or none")
    if len(codings) > MAX_CODINGS:
        raise UnsupportedEncoding(f"Content-Encoding names {len(codings)} codings; at most {MAX_CODINGS} are undone")
    return Decoder(codings, max_bytes)


class Decoder:
    """One body being decoded; `decoder` makes it.

    Attributes:
        received_bytes: what was fed so far.
        decoded_bytes: what was given out so far.
        max_received_bytes: a body longer than this is refused whatever it decodes to, so Content-Length may decide.
        memory_bytes: what the windows of its codings may take.
    """

    def __init__(self, codings: list[str], max_bytes: int) -> None:
        # A coding may lengthen what cannot be compressed by a little, never by a sixteenth and 64 KiB.
        slack_bytes = max_bytes // 16 + (64 << 10) if codings else 0
        self.max_received_bytes = max_bytes + slack_bytes
        self.memory_bytes = sum(_WINDOW_BYTES[name] for name in codings)
        self.received_bytes = 0
        self.decoded_bytes = 0
        self._max_bytes = max_bytes
        self._codings = [_Coding(name, self.max_received_bytes) for name in reversed(codings)]

    def feed(self, chunk: bytes | memoryview) -> Iterator[bytes]:
        """Decode the next chunk of the body, in pieces of 1 to PIECE_BYTES bytes; the iterator must be exhausted.

        Raises:
            TooLarge: the body is over its limit; what was given out before is within it.
            BadRequest: the body is corrupt, or something follows its end.
        """
        self.received_bytes += len(chunk)
        pieces: Iterable[bytes] = _split(chunk, PIECE_BYTES)
        for coding in self._codings:
            pieces = coding.decode(pieces)
        for piece in pieces:
            self.decoded_bytes += len(piece)
            if self.decoded_bytes > self._max_bytes:
                raise TooLarge(f"the body is over its limit of {self._max_bytes} bytes")
            yield piece

    def finish(self) -> None:
        """Say that the body has ended.

        Raises:
            BadRequest: the body is cut short.
        """
        for coding in self._codings:
            coding.finish()


class _Member(Protocol):
    """One member of a gzip body, one frame of a zstd body, or a whole deflate body."""

    @property
    def eof(self) -> bool:
        """Whether it has come to its end."""

    @property
    def unused_data(self) -> bytes:
        """What was given to it beyond its end."""

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Take the data, up to the end of the member, and yield what it becomes, PIECE_BYTES at most at a time."""


class _Coding:
    """One coding being undone, a member after the other.

    Args:
        name: a key of _MEMBERS.
        max_bytes: how many encoded bytes are taken; a bomb inside another one would else be read to its end.
    """

    def __init__(self, name: str, max_bytes: int) -> None:
        self._name = name
        self._max_bytes = self._left_bytes = max_bytes
        self._open = _MEMBERS[name]
        self._member = self._open()
        self._members = 1
        self._empty_members = 0
        self._decoded_bytes = 0
        # Before this member; and what came behind the last one that belongs to none.
        self._decoded_before = 0
        self._behind = b""

    def decode(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._left_bytes -= len(chunk)
            if self._left_bytes < 0:
                raise TooLarge(f"the {self._name} body is over its limit of {self._max_bytes} bytes")
            for data in _split(chunk, _INPUT_BYTES):
                try:
                    yield from self._inflate(data)
                except (zlib.error, zstd.ZstdError) as error:
                    raise BadRequest(self._fault(error)) from error

    def finish(self) -> None:
        if not self._member.eof:
            raise BadRequest(f"the {self._name} body is cut short")
        if self._behind == b"\r":
            raise self._more()

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                if self._behind or data[0] in _BEHIND:
                    self._pass_over(data)
                    return
                self._next_member()
            for piece in self._member.inflate(data):
                self._decoded_bytes += len(piece)
                yield piece
            data = self._member.unused_data if self._member.eof else b""

    def _pass_over(self, data: bytes) -> None:
        """Take what may stand behind the end: one newline, as tools for text put there, or the zeros that pad gzip to a block."""
        if self._name == "gzip" and self._behind in (b"", b"\0") and not data.strip(b"\0"):
            self._behind = b"\0"
        elif self._behind + data in (b"\r", b"\n", b"\r\n"):
            self._behind += data
        else:
            raise self._more()

    def _more(self) -> BadRequest:
        return BadRequest(f"something follows the end of the {self._name} body")

    def _next_member(self) -> None:
        if self._name == "deflate":
            raise self._more()
        self._empty_members += self._decoded_bytes == self._decoded_before
        self._decoded_before = self._decoded_bytes
        if self._empty_members > MAX_EMPTY_MEMBERS:
            raise BadRequest(f"the {self._name} body has more than {MAX_EMPTY_MEMBERS:,} empty members")
        if self._members >= MAX_MEMBERS + self._decoded_bytes // MEMBER_BYTES:
            raise BadRequest(f"the {self._name} body has more than {MAX_MEMBERS:,} members, and they are small")
        self._member = self._open()
        self._members += 1

    def _fault(self, error: Exception) -> str:
        if "too much memory" in str(error):
            return f"the zstd body needs a window of more than {1 << ZSTD_WINDOW_LOG >> 20} MiB, the limit of RFC 9659"
        after = ", or something follows its end" if self._members > 1 else ""
        return f"the {self._name} body is corrupt{after}"


class _Zlib:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.decompressobj(window_bits)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def inflate(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._stream.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            data = self._stream.unconsumed_tail
            # After a full piece zlib may hold more that is decoded already, with no input left to show for it.
            if self._stream.eof or (not data and len(piece) < PIECE_BYTES):
                return


class _Deflate:
    """A deflate body, which should have a zlib header and from some clients has none: its first two bytes show which."""

    unused_data = b""

    def __init__(self) -> None:
        self._head = b""
        self._stream: _Zlib | None = None

    @property
    def eof(self) -> bool:
        return self._stream is not None and self._stream.eof

    def inflate(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            data = self._head = self._head + data
            if len(data) < 2:
                return
            # Without a header these bytes would be a stored block with padding that no encoder writes.
            wrapped = data[0] & 0x8F == 0x08 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = _Zlib(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        yield from self._stream.inflate(data)
        self.unused_data = self._stream.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG})

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def inflate(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._frame.decompress(data, PIECE_BYTES)
            if piece:
                yield piece
            if self._frame.eof or self._frame.needs_input:
                return
            data = b""


_MEMBERS: Final[dict[str, Callable[[], _Member]]] = {
    "gzip": lambda: _Zlib(zlib.MAX_WBITS | 16),
    "deflate": _Deflate,
    "zstd": _Zstd,
}


def _split(data: bytes | memoryview, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield bytes(data[start : start + size])
