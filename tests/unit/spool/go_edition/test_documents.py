"""Documents one after the other come out as lines, whatever way they are printed and cut."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats.json_lines import document_line
from gateway.spool.go_edition.documents import NotDocuments, lines_of

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
indents = st.sampled_from([None, 0, 2])
newlines = st.sampled_from(["\n", "\r\n", "\n\n", " \n \t\r\n"])
documents = st.lists(st.tuples(values, indents, newlines), min_size=1, max_size=6)


def folded(data: bytes, size: int = 1 << 20) -> tuple[list[bytes], list[bytes]]:
    """Give the lines and their digests of a file that is read in chunks of a size."""
    written: list[bytes] = []
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    digests = list(lines_of(chunks, written.append))
    return b"".join(written).splitlines(keepends=True), digests


@given(documents, st.integers(1, 40))
def test_documents_become_lines(printed: list[tuple[object, int | None, str]], size: int) -> None:
    """Each document is one line with the same value, however it is printed, ended and cut into chunks."""
    data = "".join(json.dumps(value, indent=indent) + newline for value, indent, newline in printed).encode()
    lines, digests = folded(data, size)
    assert [json.loads(line) for line in lines] == [value for value, _, _ in printed]
    assert all(line.endswith(b"\n") for line in lines)
    assert len(digests) == len(lines)


@given(documents, st.integers(1, 40))
def test_a_line_keeps_its_digest(printed: list[tuple[object, int | None, str]], size: int) -> None:
    """What was folded is the same when it is folded again, and so are its digests, whatever the chunks."""
    data = "".join(json.dumps(value, indent=indent) + newline for value, indent, newline in printed).encode()
    lines, digests = folded(data)
    assert folded(b"".join(lines), size) == (lines, digests)
    assert folded(data, size) == (lines, digests)


@given(values, indents)
def test_one_document_is_folded_as_a_request_is(value: object, indent: int | None) -> None:
    """A file with one document gives the line that the same body gives when it is received."""
    body = json.dumps(value, indent=indent).encode()
    assert folded(body)[0] == [document_line(body)]


def test_documents_with_other_bytes_have_other_digests() -> None:
    """Whitespace in a string tells documents apart; only newlines between tokens do not count."""
    _, digests = folded(b'"a b"\n"ab"\n"a  b"\n{"a":1}\n{"a":2}\n')
    assert len(set(digests)) == 5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it holds no report"),
        (b" \n\r\n\t", "it holds no report"),
        (b'{"a":1}\n{"b":', "the document that begins in line 2 is torn"),
        (b'{"a":1}\n\n{\n"b":\n', "the document that begins in line 3 is torn"),
        (b'{"a":1}{"b":2}\n', "line 1 is not JSON at byte 7"),
        (b'{"a":1}\nplain text\n', "line 2 is not JSON at byte 0"),
        (b'{"a":"torn\n{"b":2}\n', "line 1 is not JSON at byte 10"),
        (b'{"a":1}\n\0\0\0\0', "line 2 is not JSON at byte 0"),
        (b'"\xe3\x81', "line 1 is not JSON"),
        (b"[" * 1001 + b"]" * 1001, "line 1 is not JSON at byte 1000"),
    ],
)
def test_other_files_are_told(data: bytes, reason: str) -> None:
    """What is not made of documents alone is told with the line where the fault begins."""
    for size in (1, 3, 1 << 20):
        with pytest.raises(NotDocuments, match=reason):
            folded(data, size)


def test_memory_does_not_grow_with_a_document() -> None:
    """A document of 64 MiB is folded in a few MiB, on one line or on millions."""

    def chunks(middle: bytes) -> Iterator[bytes]:
        yield b'["'
        for _ in range(64):
            yield middle * ((1 << 20) // len(middle))
        yield b'"]'

    for middle in (b"y", b'",\n"'):
        tracemalloc.start()
        try:
            assert len(list(lines_of(chunks(middle), len))) == 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 8 << 20
