"""A parser sees what was checked and nothing else, however the bytes of a connection are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import MalformedRequest, UnsupportedVersion
from gateway.framing import MAX_EXTENSION_BYTES, MAX_EXTENSIONS_BYTES, POISON, Framing

HEAD = b"PUT /usage HTTP/1.1\r\nHost: x\r\n"
PLAIN = HEAD + b"Content-Length: 7\r\n\r\n\r\n\r\nGET"
BARE = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED = CHUNKS + b'5;a="b"\r\n[1,\r\n\r\n003\r\n2]\n\r\n00\r\nX-Sum: 1\r\n\r\n'
FINE = [PLAIN, BARE, CHUNKED, b"\r\n" + BARE, CHUNKS + b"0\r\n\r\n", CHUNKS + b"a\r\n0123456789\r\n0;x\r\n\r\n"]


def parsed(framing: Framing, data: bytes, cuts: set[int]) -> bytes:
    """What the parser is given of data that comes in pieces."""
    places = sorted({cut for cut in cuts if cut < len(data)} | {0, len(data)})
    return b"".join(piece for start, end in itertools.pairwise(places) for piece in framing.take(data[start:end]))


@given(st.lists(st.sampled_from(FINE), min_size=1, max_size=5), st.sets(st.integers(0, 600)))
def test_what_is_fine_passes(requests: list[bytes], cuts: set[int]) -> None:
    """Whole requests in a row pass byte for byte, however they are cut."""
    framing = Framing()
    data = b"".join(requests)
    assert parsed(framing, data, cuts) == data
    assert framing.fault is None


def test_each_request_is_a_piece() -> None:
    """Requests that come together are given one after the other."""
    pieces = Framing().take(PLAIN + CHUNKED + BARE)
    assert pieces == [PLAIN, CHUNKED, BARE]


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
