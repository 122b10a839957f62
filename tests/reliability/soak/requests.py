"""What the clients of a soak send: requests of every kind, good and bad, each unlike all others."""

from __future__ import annotations

import gzip
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

KIB, MIB = 1 << 10, 1 << 20
PART_BYTES = 5 * MIB
SEGMENT_REPORT_LIMIT = 32 * KIB
REPORT_BYTES = 2 * MIB
OK = 204


class How(Enum):
    """How a request is put on the wire."""

    WHOLE = "head and body together"
    SPLIT = "first the head, then the body"
    CHUNKED = "in chunks"
    HEAD_ONLY = "the head alone, and the answer is waited for"
    ABANDONED = "half of it, and the connection is closed"


@dataclass(frozen=True)
class Request:
    """One request.

    Attributes:
        kind: for the summary.
        stream: in whose bucket to look for the contents.
        contents: lines, or one file, which are to be there once if it is acknowledged and never if it is refused.
        expected: the status of the answer.
    """

    kind: str
    stream: str
    body: bytes
    contents: tuple[bytes, ...]
    path: str = ""
    method: str = "PUT"
    headers: Mapping[str, str] = field(default_factory=dict)
    how: How = How.WHOLE
    expected: int = OK

    @property
    def target(self) -> str:
        """What stands in the request line."""
        return self.path or f"/{self.stream}"


class _Writer:
    """Makes what stands in the requests of one client.

    Args:
        client: its number; no two have the same.
        source: of all that is random.
    """

    def __init__(self, client: int, source: random.Random) -> None:
        self.source = source
        self._client = client
        self._count = itertools.count()

    def stream(self) -> str:
        return self.source.choice(("usage", "error"))

    def line(self, size: int) -> bytes:
        """A report of about this size that no compressor makes much smaller than half of it."""
        return b'{"id":"%s","text":"%s"}' % (self._name(), self.source.randbytes(size // 2).hex().encode())

    def lines(self, count: int, size: int) -> tuple[bytes, ...]:
        return tuple(self.line(size) for _ in range(count))

    def file(self, size: int) -> bytes:
        name = self._name()
        return name + self.source.randbytes(size - len(name))

    def specimen(self, kind: str, size: int, how: How = How.WHOLE) -> Request:
        body = self.file(size)
        path = f"/specimen?uri=file:///{self._name().decode()}.bin"
        return Request(kind, "specimen", body, (body,), path=path, headers={"Content-Type": "application/octet-stream"}, how=how)

    def _name(self) -> bytes:
        return b"%d-%d" % (self._client, next(self._count))


_JSON, _NDJSON = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}
_GZIP = {"Content-Encoding": "gzip"}


def _small(write: _Writer) -> Request:
    line = write.line(write.source.randrange(60, 700))
    return Request("small report", write.stream(), line, (line,), headers=_JSON)


def _split(write: _Writer) -> Request:
    line = write.line(300)
    return Request("small report, head first", write.stream(), line, (line,), headers=_JSON, how=How.SPLIT)


def _ndjson(write: _Writer) -> Request:
    lines = write.lines(write.source.randrange(2, 12), 150)
    return Request("NDJSON", write.stream(), b"\n".join(lines), lines, headers=_NDJSON)


def _large(write: _Writer) -> Request:
    line = write.line(write.source.randrange(SEGMENT_REPORT_LIMIT + KIB, 8 * SEGMENT_REPORT_LIMIT))
    return Request("large report", write.stream(), line, (line,), headers=_JSON)


def _gzip(write: _Writer) -> Request:
    lines = write.lines(5, write.source.choice((100, 100, SEGMENT_REPORT_LIMIT // 4)))
    return Request("gzip-encoded NDJSON", write.stream(), gzip.compress(b"\n".join(lines), 1), lines, headers=_NDJSON | _GZIP)


def _chunked(write: _Writer) -> Request:
    line = write.line(write.source.choice((500, 2 * SEGMENT_REPORT_LIMIT)))
    return Request("chunked report", write.stream(), line, (line,), headers=_JSON, how=How.CHUNKED)


def _specimen(write: _Writer) -> Request:
    return write.specimen("small specimen", write.source.randrange(100, 20_000), write.source.choice((How.WHOLE, How.CHUNKED)))


def _bad_json(write: _Writer) -> Request:
    line = write.line(200)[:-1]
    return Request("refused: bad JSON", write.stream(), line, (line,), headers=_JSON, expected=400)


def _bad_line(write: _Writer) -> Request:
    """All or nothing: the good lines of it must not be there either."""
    lines = (*write.lines(3, 150), write.line(150)[:-1])
    return Request("refused: a bad line in NDJSON", write.stream(), b"\n".join(lines), lines, headers=_NDJSON, expected=400)


def _torn_gzip(write: _Writer) -> Request:
    lines = write.lines(3, 150)
    body = gzip.compress(b"\n".join(lines), 1)[:-9]
    return Request("refused: gzip cut short", write.stream(), body, lines, headers=_NDJSON | _GZIP, expected=400)


def _wrong_method(write: _Writer) -> Request:
    line = write.line(100)
    return Request("refused: wrong method", write.stream(), line, (line,), method="DELETE", headers=_JSON, expected=405)


def _no_uri(write: _Writer) -> Request:
    body = write.file(500)
    return Request("refused: specimen without uri", "specimen", body, (body,), expected=400)


def _too_large(write: _Writer) -> Request:
    line = write.line(100)
    headers = _JSON | {"Content-Length": str(REPORT_BYTES + 1)}
    return Request("refused: too large", write.stream(), line, (line,), headers=headers, how=How.HEAD_ONLY, expected=413)


def _bomb(write: _Writer) -> Request:
    line = write.line(100)[:-1] + b" " * REPORT_BYTES + b"}"
    body = gzip.compress(line, 1)
    return Request("refused: too large once decoded", write.stream(), body, (line,), headers=_JSON | _GZIP, expected=413)


def _abandoned(write: _Writer) -> Request:
    line = write.line(write.source.choice((600, 4 * SEGMENT_REPORT_LIMIT)))
    return Request("abandoned half-way", write.stream(), line, (line,), headers=_JSON, how=How.ABANDONED)


def _abandoned_specimen(write: _Writer) -> Request:
    return write.specimen("abandoned half-way", write.source.randrange(1000, 400_000), How.ABANDONED)


# How often each of them comes, of the sum of all.
_LIGHT: Mapping[Callable[[_Writer], Request], int] = {
    _small: 750,
    _split: 60,
    _ndjson: 60,
    _large: 10,
    _gzip: 20,
    _chunked: 10,
    _specimen: 20,
    _bad_json: 15,
    _bad_line: 10,
    _torn_gzip: 5,
    _wrong_method: 10,
    _no_uri: 5,
    _too_large: 5,
    _bomb: 2,
    _abandoned: 10,
    _abandoned_specimen: 4,
}


def light(client: int, source: random.Random) -> Iterator[Request]:
    """Requests without end, most of them small."""
    write = _Writer(client, source)
    kinds, weights = list(_LIGHT), list(_LIGHT.values())
    while True:
        for kind in source.choices(kinds, weights, k=100):
            yield kind(write)


def heavy(client: int, source: random.Random) -> Iterator[Request]:
    """Large bodies without end: specimens that are sent to the store in parts, and reports near their limit."""
    write = _Writer(client, source)
    while True:
        yield write.specimen("specimen in parts", PART_BYTES + source.randrange(KIB, 200 * KIB))
        line = write.line(MIB)
        yield Request("large report", write.stream(), line, (line,), headers=_JSON, how=How.CHUNKED)
        lines = write.lines(2000, 500)
        yield Request("gzip-encoded NDJSON", write.stream(), gzip.compress(b"\n".join(lines), 1), lines, headers=_NDJSON | _GZIP)
        yield write.specimen("specimen in parts", PART_BYTES + source.randrange(KIB, 200 * KIB), How.CHUNKED)


def burst(client: int, source: random.Random, count: int) -> list[Request]:
    """Bodies to be sent at the same time, so that the gateway has started as many threads as it ever will."""
    write = _Writer(client, source)
    return [write.specimen("small specimen", 600 * KIB) for _ in range(count)]
