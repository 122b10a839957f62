"""Any JSON, however it is laid out and however it comes, becomes one line that means the same."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.formats.json_lines import DocumentFolder, Folder, NdjsonFolder, document_line, ndjson_lines

scalars = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.text(max_size=6) | st.sampled_from(["\r\n", "\u2028", '"'])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
blanks = st.text(" \t\r\n", max_size=3)
blanks_in_a_line = st.text(" \t\r", max_size=2)
places = st.lists(st.integers(0, 200), max_size=8)


def laid_out(value: Any, blank: str) -> str:
    """Give the text of a value with the same blanks between all of its tokens."""
    if isinstance(value, list):
        return f"[{blank}" + f"{blank},{blank}".join(laid_out(one, blank) for one in value) + f"{blank}]"
    if isinstance(value, dict):
        fields = (f"{json.dumps(name)}{blank}:{blank}{laid_out(one, blank)}" for name, one in value.items())
        return f"{{{blank}" + f"{blank},{blank}".join(fields) + f"{blank}}}"
    return json.dumps(value, ensure_ascii=False)


def folded(folder: Folder, body: bytes, where: list[int]) -> bytes:
    """Give what a folder makes of a body that comes in chunks."""
    edges = [0, *sorted(min(place, len(body)) for place in where), len(body)]
    chunks = [body[start:end] for start, end in pairwise(edges)]
    return b"".join([*map(folder.feed, chunks), folder.finish()])


@given(values, blanks, blanks, places)
def test_a_document_of_many_lines_becomes_one(value: Any, blank: str, around: str, where: list[int]) -> None:
    """A document with newlines between its tokens is one line of as many bytes and one more, and means what was sent."""
    body = f"{around}{laid_out(value, blank)}{around}".encode()
    line = document_line(body)
    assert line == body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
    assert json.loads(line) == value
    assert folded(DocumentFolder(), body, where) == line


@given(st.lists(st.tuples(values, blanks_in_a_line, st.sampled_from(["\n", "\r\n", "\n \t\r\n\n"])), min_size=1), places)
def test_each_line_of_many_means_what_was_sent(sent: list[tuple[Any, str, str]], where: list[int]) -> None:
    """Of NDJSON in any layout and in any chunks each value becomes a line, in its order, and blank lines become none."""
    body = "".join(laid_out(value, blank) + newline for value, blank, newline in sent).encode()
    lines = ndjson_lines(body)
    assert [json.loads(line) for line in lines] == [value for value, _, _ in sent]
    assert all(line.count(b"\n") == 1 and line.endswith(b"\n") and b"\r" not in line for line in lines)
    assert folded(NdjsonFolder(), body, where) == b"".join(lines)


# Lines that are none alone, and that a parse of several at once could take for some.
halves = st.sampled_from(["1,2", "[1", "1]", '{"a":1', '"a":1}', "[", "]", '1,"', '",1', "[[1]", "1]]"])
fragments = st.sampled_from(["1", "[", "]", "{", "}", '"', ",", ":", '"a"', "[1", "1]", '"a":1', " ", "\\", '\\"', "\r", "é"])
lines_of_fragments = st.one_of(
    values.map(json.dumps), values.map(json.dumps), halves, st.lists(fragments, max_size=4).map("".join)
)


@given(st.lists(lines_of_fragments, min_size=1, max_size=20), places)
@example(["1", "2,3"], [])
@example(["1", "[2", "3]", "4"], [3])
@example(["1,2", "[3", "4]"], [])
def test_many_are_taken_if_each_is(texts: list[str], where: list[int]) -> None:
    """A body is taken, whole, when each of its lines would be taken alone: what one leaves open no other one closes."""
    body = "\n".join(texts).encode()
    alone = [line for line in body.split(b"\n") if line.strip(b" \t\r")]
    try:
        expected = b"".join(document_line(line) for line in alone)
    except BadRequest:
        expected = b""
    if expected:
        # A CR before the newline belongs to it.
        assert [json.loads(line) for line in ndjson_lines(body)] == [json.loads(line) for line in expected.splitlines()]
        assert folded(NdjsonFolder(), body, where) == b"".join(ndjson_lines(body))
        return
    with pytest.raises(BadRequest):
        ndjson_lines(body)
    with pytest.raises(BadRequest):
        folded(NdjsonFolder(), body, where)
