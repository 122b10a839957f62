"""A parser sees what was checked and nothing else, however the bytes of a connection are cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import MalformedRequest, UnsupportedVersion
from gateway.web import framing as framing_module
from gateway.web.framing import MAX_EXTENSION_BYTES, MAX_EXTENSIONS_BYTES, POISON, Framing
from gateway.web.head_grammar import Head, plain_head, read_head

HEAD = b"PUT /usage HTTP/1.1\r\nHost: x\r\n"
PLAIN = HEAD + b"Content-Length: 7\r\n\r\n\r\n\r\nGET"
BARE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKS + b'5;a="b"\r\n[1,\r\n\r\n003\r\n2]\n\r\n00\r\nX-Sum: 1\r\n\r\n'
FINE = [PLAIN, BARE, CHUNKED, b"\r\n" + BARE, CHUNKS + b"0\r\n\r\n", CHUNKS + b"a\r\n0123456789\r\n0;x\r\n\r\n"]


def parsed_pieces(framing: Framing, data: bytes, cuts: set[int]) -> Iterator[bytes]:
    """What the parser is given of data that comes in pieces."""
    places = sorted({cut for cut in cuts if cut < len(data)} | {0, len(data)})
    return (piece for start, end in itertools.pairwise(places) for piece in framing.take(data[start:end]))


def parsed(framing: Framing, data: bytes, cuts: set[int]) -> bytes:
    """The same in a row."""
    return b"".join(parsed_pieces(framing, data, cuts))


@given(st.lists(st.sampled_from(FINE), min_size=1, max_size=5), st.sets(st.integers(0, 600)))
def test_what_is_fine_passes(requests: list[bytes], cuts: set[int]) -> None:
    """Whole requests in a row pass byte for byte, however they are cut."""
    framing = Framing()
    data = b"".join(requests)
    assert parsed(framing, data, cuts) == data
    assert framing.fault is None


def test_a_plain_head_is_no_way_around() -> None:
    """A request with a plain head passes as it came, and only where a request may begin and nothing was wrong."""
    framing = Framing()
    assert framing.take(PLAIN) == [PLAIN]
    assert framing.take(PLAIN[:-1]) == [PLAIN[:-1]]
    assert framing.take(PLAIN[-1:]) == [PLAIN[-1:]]
    assert framing.take(PLAIN + BARE[:3]) == [PLAIN]
    assert framing.take(BARE[3:]) == [BARE]
    assert framing.take(HEAD + b"Content-Length: %d\r\n\r\n" % (len(PLAIN) + 1))
    assert framing.take(PLAIN) == [PLAIN]
    assert framing.take(b"x" + BARE) == [b"x", BARE]
    framing.take(b"GARBAGE\r\n")
    assert framing.take(PLAIN) == []


def test_each_request_is_a_piece() -> None:
    """Requests that come together are given one after the other."""
    pieces = Framing().take(PLAIN + CHUNKED + BARE)
    assert pieces == [PLAIN, CHUNKED, BARE]


class Counted:
    """The heads that were found fine."""

    def __init__(self) -> None:
        self.count = 0

    def plain_head(self, data: bytes) -> tuple[int, int] | None:
        """As `headcheck`'s; what stands behind the request is read otherwise, and its head once more."""
        found = plain_head(data)
        self.count += found is not None and sum(found) >= len(data)
        return found

    def read_head(self, head: bytes) -> Head:
        """As `headcheck`'s."""
        found = read_head(head)
        self.count += 1
        return found


class Far(asyncio.Protocol):
    """What a parser tells when it has more than it wants."""

    def pause_reading(self) -> None:
        """Nothing."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Nothing."""


PARTS = st.sampled_from(
    [
        *(
            PLAIN,
            BARE,
            CHUNKED,
            HEAD,
            CHUNKS,
            b"POST http://a/b HTTP/1.2\r\nHost: [::1]:8\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost:\r\n",
        ),
        *(
            b"Content-Length: 3\r\n",
            b"content-length:  003 \r\n",
            b"TRANSFER-encoding:chunked\r\n",
            b"X:\r\n",
            b"A: \xff\t b\r\n",
        ),
        *(b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n"),
        *(
            b"\r\n",
            b"abc",
            b"3\r\nabc\r\n",
            b"0003;a=b;c\r\nabc\r\n",
            b'3;a="q\\"x"\r\nabc\r\n',
            b"0\r\n\r\n",
            b"0;x\r\nT: u\r\n\r\n",
        ),
        *(b";", b"=", b'"', b" ", b"\t", b"\n", b"\0", b"A", b":"),
    ]
)


@given(st.lists(PARTS, min_size=1, max_size=12).map(b"".join), st.sets(st.integers(0, 600)))
def test_the_parser_sees_the_same_requests(data: bytes, cuts: set[int]) -> None:
    """What passes is parsed as the requests that were read, no more and no fewer, and the poison is an error at its place."""
    heads = Counted()

    async def run() -> int:
        far: Any = Far()
        loop = asyncio.get_running_loop()
        parser = HttpRequestParser(far, loop, 1 << 16, payload_exception=ValueError, auto_decompress=False)
        requests = 0
        for piece in parsed_pieces(Framing(), data, cuts):
            messages, _, _ = parser.feed_data(piece.removesuffix(POISON))
            parser.set_upgraded(False)
            requests += len(messages)
            if piece.endswith(POISON):
                with pytest.raises(HttpProcessingError, match=r"\\x00refused"):
                    parser.feed_data(POISON)
        return requests

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(framing_module, "plain_head", heads.plain_head)
        patch.setattr(framing_module, "read_head", heads.read_head)
        assert asyncio.run(run()) == heads.count


BROKEN = {
    "a version": (HEAD.replace(b"1.1", b"2.0") + b"\r\n", UnsupportedVersion),
    "no size": (CHUNKS + b"\r\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "a size that is none": (CHUNKS + b"xyz\r\n", MalformedRequest),
    "a size with a sign": (CHUNKS + b"+3\r\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "a size with a blank": (CHUNKS + b"3 \r\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "a size with 0x": (CHUNKS + b"0x3\r\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "a size of bare LF": (CHUNKS + b"3\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "a size of bare CR": (CHUNKS + b"3\r[1]\r\n0\r\n\r\n", MalformedRequest),
    "zeros without end": (CHUNKS + b"0" * 17, MalformedRequest),
    "a size beyond 64 bits": (CHUNKS + b"1" + b"0" * 16 + b"\r\n", MalformedRequest),
    "a long extension": (CHUNKS + b"3;" + b"x" * MAX_EXTENSION_BYTES, MalformedRequest),
    "an extension with a NUL": (CHUNKS + b"3;a=\0\r\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "an extension that is none": (CHUNKS + b"3;=\r\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "an extension that is not closed": (CHUNKS + b'3;a="\r\n[1]\r\n0\r\n\r\n', MalformedRequest),
    "an extension with an LF": (CHUNKS + b"3;a\n[1]\r\n0\r\n\r\n", MalformedRequest),
    "a chunk too long": (CHUNKS + b"3\r\n[1]]\r\n0\r\n\r\n", MalformedRequest),
    "a chunk without an end": (CHUNKS + b"3\r\n[1]0\r\n\r\n", MalformedRequest),
    "a trailer that is none": (CHUNKS + b"0\r\nno colon\r\n\r\n", MalformedRequest),
    "a length in a trailer": (CHUNKS + b"0\r\nContent-Length: 3\r\n\r\n", MalformedRequest),
    "a trailer without end": (CHUNKS + b"0\r\nX: " + b"x" * 9000, MalformedRequest),
    "many extensions": (CHUNKS + b"".join(b"1;%b\r\n1\r\n" % (b"x" * 1000) for _ in range(17)), MalformedRequest),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("cut", [None, 1, 7])
def test_a_fault_ends_the_connection(name: str, cut: int | None) -> None:
    """Behind a fault nothing passes, what was asked before it does, and it is noted once."""
    data, kind = BROKEN[name]
    whole = PLAIN + data
    framing = Framing()
    given = parsed(framing, whole + BARE, set() if cut is None else set(range(0, len(whole) + 50, cut)))
    assert type(framing.fault) is kind
    assert given.startswith(PLAIN)
    assert given.endswith(POISON)
    assert whole.startswith(given.removesuffix(POISON))
    assert framing.take(BARE) == []


def test_extensions_are_counted_for_each_body() -> None:
    """The bound of all extensions is that of one body, and the next one has it anew."""
    chunk = b"1;%b\r\n1\r\n" % (b"x" * (MAX_EXTENSION_BYTES - 1))
    body = CHUNKS + chunk * (MAX_EXTENSIONS_BYTES // MAX_EXTENSION_BYTES) + b"0\r\n\r\n"
    framing = Framing()
    assert b"".join(framing.take(body + body)) == body + body


def test_a_broken_body_is_one_with_its_head() -> None:
    """A body that is broken where its head is comes with that, so that nobody begins to receive it."""
    pieces = Framing().take(PLAIN + CHUNKS + b"xyz\r\n")
    assert pieces == [PLAIN, CHUNKS + POISON]


def test_a_later_version_is_parsed_as_1_1() -> None:
    """A request in HTTP/1.2 is given as one in HTTP/1.1, with its body."""
    assert b"".join(Framing().take(PLAIN.replace(b"HTTP/1.1", b"HTTP/1.2") + BARE)) == PLAIN + BARE


def test_a_body_may_go_another_way() -> None:
    """Where a body went past, the next byte begins a request."""
    framing = Framing()
    framing.take(HEAD + b"Content-Length: 1000\r\n\r\nabc")
    framing.begin()
    assert framing.take(BARE) == [BARE]


def test_little_is_held() -> None:
    """Data of a body passes at once; only heads, sizes and trailers wait, within their bounds."""
    framing = Framing()
    assert framing.take(HEAD) == []
    assert framing.take(b"Transfer-Encoding: chunked\r\n\r\nfffff\r") == [CHUNKS]
    assert framing.take(b"\nab") == [b"fffff\r\nab"]
    assert framing.take(b"cd") == [b"cd"]
