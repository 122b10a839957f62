"""The bytes of a form (`multipart/form-data`, RFC 7578) taken apart: heads and contents, piece by piece.

aiohttp's MultipartReader reads from a StreamReader in the event loop, and what is read here comes out of a decoder in the
thread that writes; so this is a parser of our own, without I/O. It finds the same however the body is cut into chunks, in
memory that does not grow with it: it keeps a head, or the few bytes in which a boundary may have begun.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from gateway.core.errors import BadRequest
from gateway.core.header_parameters import TOKEN

MAX_HEAD_BYTES: Final = 8 << 10
# Before the first boundary and behind the last one there should be nothing, and what is there is ignored.
MAX_IGNORED_BYTES: Final = 64 << 10

_CRLF: Final = b"\r\n"
_MAX_PADDING: Final = 256
# What makes a boundary of the bytes before it: `--` for the last one, else the end of the line.
_ENDING: Final = re.compile(rb"--|[ \t]{0,%d}\r\n" % _MAX_PADDING)
_BEGUN_ENDING: Final = re.compile(rb"-?|[ \t]{0,%d}\r?" % _MAX_PADDING)
_FIELD: Final = re.compile(rf"({TOKEN}):[ \t]*(.*?)[ \t]*".encode("ascii"), re.DOTALL)


@dataclass(frozen=True, slots=True)
class PartHead:
    """A part begins.

    Attributes:
        number: of the part, from 1.
        fields: of its head; names in lower case, bytes that are not UTF-8 as surrogate escapes.
    """

    number: int
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PartEnd:
    """The part ends."""


# Bytes are content of the part that has begun.
Event = PartHead | bytes | PartEnd


class _State(Enum):
    PREAMBLE = auto()
    HEAD = auto()
    CONTENT = auto()
    EPILOGUE = auto()


class FormParser:
    """One form being taken apart.

    Args:
        boundary: as the Content-Type names it.
    """

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._delimiter = b"\r\n--" + boundary
        self._state = _State.PREAMBLE
        # As if a line had ended before the body, whose first bytes may be a boundary.
        self._held = _CRLF
        self._lead = len(_CRLF)
        self._searched = 0
        self._ignored = 0
        self._parts = 0

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Take the next bytes of the body; the iterator must be exhausted. Raises `BadRequest`."""
        data, self._held = self._held + chunk, b""
        while data:
            if self._state is _State.HEAD:
                data = yield from self._head(data)
            elif self._state is _State.EPILOGUE:
                data = self._ignore(data)
            else:
                data = yield from self._content(data)

    def finish(self) -> None:
        """Take the end of the body. Raises `BadRequest` if it is cut short."""
        if self._state is _State.PREAMBLE:
            raise BadRequest(f"the body of the form does not have its boundary {_shown(self._boundary)}")
        if self._state is not _State.EPILOGUE:
            where = "head" if self._state is _State.HEAD else "content"
            raise BadRequest(f"the form is cut short in the {where} of part {self._parts}: its last boundary is missing")

    # --- states: each takes what it can, and gives what it leaves to the next one ----------------------------------

    def _head(self, data: bytes) -> Generator[Event, None, bytes]:
        """Take a head, with the end of the boundary's line before it."""
        end = data.find(_CRLF + _CRLF, max(0, self._searched - 3))
        if end > MAX_HEAD_BYTES or (end < 0 and len(data) > MAX_HEAD_BYTES + 3):
            raise BadRequest(f"the head of part {self._parts} of the form is larger than {MAX_HEAD_BYTES} bytes")
        if end < 0:
            self._held, self._searched = data, len(data)
            return b""
        yield PartHead(self._parts, _fields_of(self._parts, data[len(_CRLF) : end]))
        self._state = _State.CONTENT
        # The end of the head stays for the content: of an empty one it may be the line end before the boundary.
        self._lead = len(_CRLF)
        return data[end + len(_CRLF) :]

    def _content(self, data: bytes) -> Generator[Event, None, bytes]:
        """Take content, or what stands before the first boundary, up to a boundary."""
        at = data.find(self._delimiter)
        while at >= 0:
            behind = at + len(self._delimiter)
            ending = data[behind : behind + _MAX_PADDING + len(_CRLF)]
            if match := _ENDING.match(ending):
                yield from self._give(data[:at])
                if self._state is _State.CONTENT:
                    yield PartEnd()
                return self._begin(match[0], data[behind + match.end() :])
            if _BEGUN_ENDING.fullmatch(ending):
                break
            at = data.find(self._delimiter, behind)
        if at < 0:
            # The delimiter has one CR, its first byte: only the last CR can begin one that is not here whole.
            at = data.rfind(b"\r", -len(self._delimiter))
            if at < 0 or not self._delimiter.startswith(data[at:]):
                at = len(data)
        yield from self._give(data[:at])
        self._held = data[at:]
        return b""

    def _begin(self, ending: bytes, rest: bytes) -> bytes:
        """Begin what follows a boundary with this ending."""
        if ending == b"--":
            self._state = _State.EPILOGUE
            return rest
        self._state = _State.HEAD
        self._parts += 1
        self._searched = 0
        return _CRLF + rest

    def _give(self, content: bytes) -> Iterator[Event]:
        if not content:
            return
        content = content[self._lead :]
        self._lead = 0
        if self._state is _State.PREAMBLE:
            self._ignore(content)
        elif content:
            yield content

    def _ignore(self, data: bytes) -> bytes:
        self._ignored += len(data)
        if self._ignored > MAX_IGNORED_BYTES:
            what = "before its first boundary" if self._state is _State.PREAMBLE else "behind its last boundary"
            raise BadRequest(
                f"the form has more than {MAX_IGNORED_BYTES} bytes {what}; that is {_shown(b'--' + self._boundary)} on a line"
            )
        return b""


def _fields_of(number: int, head: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in head.split(_CRLF) if head else ():
        match = _FIELD.fullmatch(line)
        if match is None:
            raise BadRequest(f"the head of part {number} of the form has a line that is no field: {_shown(line)}")
        name = match[1].decode("ascii").lower()
        if name in fields:
            raise BadRequest(f"the head of part {number} of the form has {name} twice")
        fields[name] = match[2].decode("utf-8", "surrogateescape")
    return fields


def _shown(text: bytes) -> str:
    return repr(text[:80].decode("ascii", "backslashreplace"))
