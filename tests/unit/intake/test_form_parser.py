"""The bytes of a form are taken apart the same way however they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.intake.form_parser import MAX_HEAD_BYTES, MAX_IGNORED_BYTES, FormParser, PartEnd, PartHead

BOUNDARY = b"-b-"
DELIMITER = b"\r\n---b-"
HEAD = b'Content-Disposition: form-data; name="f"'

Part = tuple[dict[str, str], bytes]


def parts_of(chunks: list[bytes], boundary: bytes = BOUNDARY) -> list[Part]:
    """Give every part of a form that comes in these chunks."""
    parser = FormParser(boundary)
    found: list[Part] = []
    is_open = False
    for chunk in chunks:
        for event in parser.feed(chunk):
            if isinstance(event, PartHead):
                assert not is_open
                is_open = True
                found.append((dict(event.fields), b""))
                assert event.number == len(found)
            elif isinstance(event, PartEnd):
                assert is_open
                is_open = False
            else:
                assert is_open
                assert event
                found[-1] = found[-1][0], found[-1][1] + event
    parser.finish()
    assert not is_open
    return found


def form(*contents: bytes) -> bytes:
    """A form of parts with these contents."""
    parts = b"".join(b"---b-\r\n%b\r\n\r\n%b\r\n" % (HEAD, content) for content in contents)
    return parts + b"---b---\r\n"


# What stands in a body, so that boundaries, their beginnings and what only looks like one are met everywhere.
bits = st.sampled_from(
    [
        *(b"\r", b"\n", b"\r\n", b"-", b"--", BOUNDARY, b"---b-", DELIMITER, DELIMITER + b"--", DELIMITER + b" \r\n"),
        *(HEAD, b"\r\n\r\n", b"x: y", b":", b" ", b"\t", b"\0", b"b"),
    ]
)
bodies = st.lists(bits | st.binary(max_size=4), max_size=20).map(b"".join)


def outcome(chunks: list[bytes]) -> object:
    """What a body in these chunks is, or what is wrong with it."""
    try:
        return parts_of(chunks)
    except BadRequest as error:
        return str(error)


@given(bodies | st.lists(bodies, max_size=3).map(lambda contents: form(*contents)), st.lists(st.integers(1, 200)))
@example(form(b"\r\n---b", b"\r\n---b-x", b""), list(range(1, 200)))
@example(b"---b- \t \r\n" + HEAD + b"\r\n\r\n---b-\r\n" + HEAD + b"\r\n\r\n\r\n\r\n---b---", list(range(1, 200)))
def test_cuts_change_nothing(body: bytes, cuts: list[int]) -> None:
    """A body in chunks of any size has the same parts, or the same fault, as in one."""
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    assert outcome([body[start:end] for start, end in pairwise(edges)]) == outcome([body])


@given(st.lists(bodies, max_size=4))
def test_contents_are_found_again(contents: list[bytes]) -> None:
    """Whatever parts hold, as long as it has no boundary, is given byte for byte."""
    contents = [content for content in contents if DELIMITER not in b"\r\n" + content + b"\r\n"]
    assert [content for _, content in parts_of([form(*contents)])] == contents


def test_what_begins_as_a_boundary_is_content() -> None:
    """A line that only begins with the boundary, as one of a form within the form does, is content."""
    inner = b"---b-c\r\nx\r\n---b- y\r\n---b--\r\n-"
    assert [content for _, content in parts_of([form(inner)])] == [inner]


def test_a_content_of_nothing_may_have_no_line_end() -> None:
    """A boundary right behind a head ends a part of no bytes, whose head may be empty too."""
    body = b"---b-\r\n" + HEAD + b"\r\n\r\n---b-\r\n\r\n---b-\r\n\r\nx\r\n---b---"
    assert [content for _, content in parts_of([body])] == [b"", b"", b"x"]


def test_fields_of_a_head() -> None:
    """The fields of a head have names in lower case and values without white space around them, in UTF-8 or not."""
    body = b"---b-\r\nContent-Type:a/b \t\r\nX-\xc3:\r\n\r\n\r\n---b---"
    with pytest.raises(BadRequest, match=r"part 1 .* no field"):
        parts_of([body])
    body = "---b-\r\nContent-TYPE: \ta/b \r\nX:\r\nY: 日\r\nZ: \udcff\r\n\r\n\r\n---b---".encode("utf-8", "surrogateescape")
    assert parts_of([body]) == [({"content-type": "a/b", "x": "", "y": "日", "z": "\udcff"}, b"")]


def test_what_stands_outside_of_the_parts_is_ignored() -> None:
    """Text before the first boundary and behind the last one is no part."""
    assert [content for _, content in parts_of([b"hello\r\n" + form(b"1", b"2") + b"---b-\r\nbye"])] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "does not have its boundary '-b-'"),
        (b'{"n":1}', "does not have its boundary"),
        (b"--other\r\n\r\n\r\n--other--\r\n", "does not have its boundary"),
        (b"x---b-\r\n", "does not have its boundary"),
        (b"---b-\n" + HEAD + b"\n\nx\n---b---", "does not have its boundary"),
        (b"---b-", "does not have its boundary"),
        (b"x" * (MAX_IGNORED_BYTES + 1), "bytes before its first boundary; that is '---b-'"),
        (form(b"x") + b"x" * MAX_IGNORED_BYTES, "bytes behind its last boundary"),
        (form(b"x")[:-5], "cut short in the content of part 1"),
        (form(b"x")[:20], "cut short in the head of part 1"),
        (form(b"x", b"y")[:-5], "content of part 2"),
        (b"---b-\r\nx: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n", "head of part 1 .* larger than 8192 bytes"),
        (b"---b-\r\nx: " + b"y" * MAX_HEAD_BYTES, "head of part 1 .* larger than 8192 bytes"),
        (b"---b-\r\nx: 1\r\n y\r\n\r\n\r\n---b---", "no field: ' y'"),
        (b"---b-\r\nx: 1\r\nX: 2\r\n\r\n\r\n---b---", "has x twice"),
    ],
)
def test_what_is_wrong_with_a_form_is_named(body: bytes, fault: str) -> None:
    """A body that is no whole form is refused, and the error says what is wrong with it and where."""
    with pytest.raises(BadRequest, match=fault):
        parts_of([body])
    with pytest.raises(BadRequest, match=fault):
        parts_of([body[at : at + 1] for at in range(len(body))])


def test_little_is_kept_of_a_long_content() -> None:
    """While content comes the parser keeps no more of it than could be the beginning of a boundary."""
    parser = FormParser(BOUNDARY)
    list(parser.feed(b"---b-\r\n" + HEAD + b"\r\n\r\n"))
    taken = given_back = 0
    for chunk in [b"\r" * 100_000, b"\r\n---b" * 10_000, (DELIMITER + b" " * 300) * 1000, DELIMITER + b" " * 200]:
        taken += len(chunk)
        given_back += sum(len(event) for event in parser.feed(chunk) if isinstance(event, bytes))
        assert taken - given_back == len(parser._held) <= len(DELIMITER) + 256 + 2
