"""Heads of plain reports, by a strict grammar: what is not surely plain is left to aiohttp's parser."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from gateway.access.identify import user_of
from gateway.core.bounded import Bounded
from gateway.core.errors import GatewayError
from gateway.core.streams import Stream
from gateway.formats.json_lines import is_ndjson
from gateway.web.head_grammar import is_host

MAX_HEAD_BYTES = 8 * 1024
MAX_FIELDS = 100
KEPT_HEADS = 1024

_REQUEST_LINE = re.compile(rb"(PUT|POST) (/[A-Za-z0-9._~/-]+) HTTP/1\.1")
_FIELD = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+): ?([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,8}")
# Fields that change what the body is or how the connection goes on.
_NOT_PLAIN = frozenset(
    {
        *(b"connection", b"content-encoding", b"expect", b"keep-alive", b"proxy-connection", b"sec-websocket-key1"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)


@dataclass(frozen=True, slots=True)
class PlainHead:
    """The head of a plain report.

    Attributes:
        method: `PUT` or `POST`.
        path: as requested.
        stream: whose path it is.
        user: that sends it.
        request_id: as given by the client, None if it gave none.
        length: of the body, in bytes.
        size: of the head itself, in bytes.
    """

    method: str
    path: str
    stream: Stream
    user: str
    request_id: str | None
    length: int
    size: int


def parse_head(head: bytes, streams: Mapping[str, Stream], max_length: int) -> PlainHead | None:
    """Read a head, its empty line included; None if it is not that of one plain document of at most `max_length` bytes."""
    lines = head.split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    stream = streams.get(line[2].decode("ascii")) if line else None
    if line is None or stream is None or len(lines) > MAX_FIELDS:
        return None
    fields: dict[bytes, str] = {}
    for text in lines[1:-2]:
        field = _FIELD.fullmatch(text)
        name = field[1].lower() if field else b""
        if field is None or name in fields or name in _NOT_PLAIN:
            return None
        fields[name] = field[2].decode("ascii")
    length = fields.get(b"content-length", "")
    if not _LENGTH.fullmatch(length.encode("ascii")) or int(length) > max_length:
        return None
    user = _user(fields)
    if b"host" not in fields or not is_host(fields[b"host"].encode("ascii")):
        return None
    if user is None or not _is_of_one_document(fields.get(b"content-type", "")):
        return None
    method, path = line[1].decode("ascii"), line[2].decode("ascii")
    return PlainHead(method, path, stream, user, fields.get(b"x-request-id"), int(length), len(head))


# Types are few, and some have a charset.
@lru_cache(maxsize=256)
def _is_of_one_document(content_type: str) -> bool:
    return not is_ndjson(content_type) and "form-data" not in content_type.lower()


def _user(fields: Mapping[bytes, str]) -> str | None:
    token, authorization = fields.get(b"user_token"), fields.get(b"authorization")
    try:
        return user_of(() if token is None else (token,), () if authorization is None else (authorization,))
    except GatewayError:
        return None


class Heads:
    """Reads plain heads, and knows them again: a client's heads differ little or not at all from request to request.

    Args:
        streams: the report streams, by path.
        max_length: the largest body.
    """

    def __init__(self, streams: Mapping[str, Stream], max_length: int) -> None:
        self._streams = streams
        self._max_length = max_length
        self._known: Bounded[bytes, PlainHead] = Bounded(KEPT_HEADS)

    def head_of(self, data: bytes) -> PlainHead | None:
        """The plain head that the data begins with, None if there is none or it is not complete."""
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            return None
        head = data[: end + 4]
        return self._known.get(head) or self._learn(head)

    def _learn(self, head: bytes) -> PlainHead | None:
        read = parse_head(head, self._streams, self._max_length)
        if read is not None:
            self._known[head] = read
        return read
