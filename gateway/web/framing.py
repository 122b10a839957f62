"""Where each request on a connection begins and ends, followed so that a parser sees no byte that was not checked.

    HEAD ─▶ BODY (of a known length) ─▶ HEAD
         └▶ SIZE ─▶ DATA ─▶ DATA_END ─▶ SIZE … ─▶ TRAILER ─▶ HEAD

A head, the size of a chunk and a trailer are held until they are complete, each within its bound; what is data passes at
once. At the first fault the parser is given `POISON`, which it takes for an error at that very place: so the answer comes
after those to the requests before it, whatever the parser had in hand.
"""

from __future__ import annotations

import enum
import re

from gateway.core.errors import GatewayError, MalformedRequest
from gateway.web.head_grammar import TOKEN, check_beginning, check_trailer, plain_head, read_head

# Nothing that a request can hold, in a head or between chunks.
POISON = b"\0refused\r\n\r\n"

MAX_SIZE_DIGITS = 16
MAX_EXTENSION_BYTES = 1024
# Of all chunks of a body.
MAX_EXTENSIONS_BYTES = 16 * 1024

_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_EXTENSIONS = re.compile(rb"(?:;" + TOKEN + rb"(?:=(?:" + TOKEN + rb"|" + _QUOTED + rb"))?)*+")
# A size and what may be extensions, up to the end of the line or of the data.
_SIZE = re.compile(rb"([0-9A-Fa-f]*+)(;[\t\x20-\x7e\x80-\xff]*+)?(\r\n|\r?\Z)")


class _At(enum.Enum):
    """What the next byte belongs to."""

    HEAD = enum.auto()
    BODY = enum.auto()
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()


class Framing:
    """The bytes of one connection.

    Attributes:
        fault: what was wrong, None as long as nothing is.
    """

    def __init__(self) -> None:
        self.fault: GatewayError | None = None
        self._steps = {
            _At.HEAD: self._head,
            _At.BODY: self._data,
            _At.SIZE: self._size,
            _At.DATA: self._data,
            _At.DATA_END: self._data_end,
            _At.TRAILER: self._trailer,
        }
        self.begin()

    def begin(self) -> None:
        """The next byte begins a request: what came of the one before did not come by here."""
        self._at = _At.HEAD
        # Bytes of data still to come; of the extensions of this body.
        self._left = 0
        self._extensions = 0
        # What is not complete, and how much of it was looked at.
        self._held = b""
        self._seen = 0
        # A head that is to be parsed otherwise than it was sent.
        self._instead: bytes | None = None

    def take(self, data: bytes) -> list[bytes]:
        """Give what may be parsed now, in pieces each of which begins one request at most."""
        if self.fault is not None:
            return []
        if self._at is _At.HEAD and not self._held and (plain := plain_head(data)) is not None:
            left = sum(plain) - len(data)
            if left >= 0:
                # What most clients send; the steps below find the same.
                if left:
                    self._at, self._left = _At.BODY, left
                return [data]
        data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        start = at = 0
        try:
            while at < len(data):
                if self._at is _At.HEAD and start < at:
                    pieces.append(data[start:at])
                    start = at
                end = self._steps[self._at](data, at)
                if end is None:
                    break
                if self._instead is not None:
                    pieces.append(self._instead)
                    start, self._instead = end, None
                at = end
        except GatewayError as fault:
            self.fault = fault
            return [*pieces, data[start:at] + POISON]
        if start < at:
            pieces.append(data[start:at])
        self._held = data[at:]
        return pieces

    # --- steps: each gives where it ends, or None if more has to come ----------------------------------------------

    def _head(self, data: bytes, at: int) -> int | None:
        # Empty lines before a request are skipped, as RFC 9112, 2.2 asks; the parser does likewise.
        if data.startswith(b"\r\n", at):
            return at + 2
        if data.endswith(b"\r", at) and at == len(data) - 1:
            return None
        seen, self._seen = self._seen, 0
        end = data.find(b"\r\n\r\n", at + max(0, seen - 3))
        if end < 0:
            self._seen = len(data) - at
            check_beginning(data[at:], seen)
            return None
        end += 4
        sent = data[at:end]
        head = read_head(sent)
        if head.data != sent:
            self._instead = head.data
        self._extensions = 0
        if head.length is None:
            self._at = _At.SIZE
        elif head.length:
            self._at, self._left = _At.BODY, head.length
        return end

    def _data(self, data: bytes, at: int) -> int:
        end = min(at + self._left, len(data))
        self._left -= end - at
        if not self._left:
            self._at = _At.HEAD if self._at is _At.BODY else _At.DATA_END
        return end

    def _data_end(self, data: bytes, at: int) -> int | None:
        if data.startswith(b"\r\n", at):
            self._at = _At.SIZE
            return at + 2
        if data[at:] == b"\r":
            return None
        raise MalformedRequest("a chunk of the body is longer than its size says, or does not end in CR LF")

    def _size(self, data: bytes, at: int) -> int | None:
        found = _SIZE.match(data, at)
        if found is None:
            raise MalformedRequest("a chunk of the body does not begin with its size in hexadecimal digits")
        digits, extension, end = found.group(1, 2, 3)
        if len(digits) > MAX_SIZE_DIGITS:
            raise MalformedRequest(f"the size of a chunk of the body has more than {MAX_SIZE_DIGITS} digits")
        length = len(extension or b"")
        if length > MAX_EXTENSION_BYTES or self._extensions + length > MAX_EXTENSIONS_BYTES:
            raise MalformedRequest(
                f"extensions of chunks take more than {MAX_EXTENSION_BYTES:,} bytes, or {MAX_EXTENSIONS_BYTES:,} in one body"
            )
        if end != b"\r\n":
            return None
        if not digits:
            raise MalformedRequest("a chunk of the body has no size")
        if extension and not _EXTENSIONS.fullmatch(extension):
            raise MalformedRequest("an extension of a chunk is not a name, or a name and a value")
        self._extensions += length
        self._left = int(digits, 16)
        self._at = _At.DATA if self._left else _At.TRAILER
        return found.end()

    def _trailer(self, data: bytes, at: int) -> int | None:
        if data.startswith(b"\r\n", at):
            self._at = _At.HEAD
            return at + 2
        end = data.find(b"\r\n\r\n", at)
        check_trailer(data[at:] if end < 0 else data[at : end + 4], is_whole=end >= 0)
        if end < 0:
            return None
        self._at = _At.HEAD
        return end + 4
