"""A body becomes the same lines whether it came at once or in chunks."""

from __future__ import annotations

import json
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.formats.json_check import NotJson, check
from gateway.formats.json_lines import (
    LEADING_BYTES,
    BadLine,
    DocumentFolder,
    Folder,
    NdjsonFolder,
    SoundPrefix,
    document_line,
    first_fault,
    ndjson_lines,
    sound_prefix,
)

pieces = st.sampled_from(
    [
        b"1",
        b"12",
        b"{}",
        b'{"a":1}',
        b'"\xc3\xa9"',
        b'"a b"',
        b"[",
        b"]",
        b",",
        b'"',
        b"\\n",
        b" ",
        b"\t",
        b"\xc3",
        b"x",
    ]
)
newlines = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r", b"\r\r\n"])
# Good lines are the most frequent, so that many bodies are accepted as a whole.
good_lines = st.sampled_from([b"1", b" {} ", b'{"a":\r[1,2]}', b"", b" \t", b'"\xc3\xa9"\r', b"\r 0"])
bodies = st.one_of(
    st.lists(good_lines | newlines, max_size=12).map(b"".join),
    st.lists(good_lines | newlines | pieces, max_size=12).map(b"".join),
)
places = st.lists(st.integers(0, 60), max_size=6)


def cut(body: bytes, where: list[int]) -> list[bytes]:
    """Cut a body into chunks; some may be empty."""
    edges = [0, *sorted(min(place, len(body)) for place in where), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def fold(folder: Folder, chunks: list[bytes]) -> bytes:
    """Give all that a folder makes of these chunks."""
    return b"".join([*map(folder.feed, chunks), folder.finish()])


def outcome(folder: Folder, chunks: list[bytes]) -> tuple[bytes, int] | str:
    """Give what a folder makes of these chunks and how many lines, or the text of its refusal."""
    try:
        return fold(folder, chunks), folder.lines
    except BadRequest as refusal:
        return str(refusal)


def document_at_once(body: bytes) -> tuple[bytes, int] | str:
    """Give what becomes of a document in memory, in the shape of `outcome`."""
    try:
        return document_line(body), 1
    except BadRequest as refusal:
        return str(refusal)


def ndjson_at_once(body: bytes) -> tuple[bytes, int] | str:
    """Give what becomes of NDJSON in memory, in the shape of `outcome`."""
    try:
        lines = ndjson_lines(body)
    except BadRequest as refusal:
        return str(refusal)
    return b"".join(lines), len(lines)


# --- one document ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"{}", b"{}\n"),
        (b'{"a": "b"}\n', b'{"a": "b"} \n'),
        (b'{\r\n\t"a" :\n1}\r\n', b'{  \t"a" : 1}  \n'),
        (rb'"\n\r"', rb'"\n\r"' + b"\n"),
        (b'{"n":1.0,"n":1e400}', b'{"n":1.0,"n":1e400}\n'),
    ],
)
def test_a_document_becomes_one_line(body: bytes, line: bytes) -> None:
    """Newlines between tokens become spaces, all other bytes stay, one LF ends the line."""
    assert document_line(body) == line


@pytest.mark.parametrize("body", [b"", b" \n", b'{"a":1', b'"a\nb"', b"{}\n{}"])
def test_a_body_that_is_not_one_document_is_refused(body: bytes) -> None:
    """Nothing, half a document, a newline in a string, and two documents are bad requests."""
    with pytest.raises(NotJson):
        document_line(body)


@given(bodies, places)
def test_a_document_in_chunks_gives_the_same(body: bytes, where: list[int]) -> None:
    """A document folder writes the line of `document_line` or refuses in the same words, however the body is cut."""
    assert outcome(DocumentFolder(), cut(body, where)) == document_at_once(body)


# --- many documents ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "lines"),
    [
        (b"1\n2\n", [b"1\n", b"2\n"]),
        (b"1\n2", [b"1\n", b"2\n"]),
        (b"1\r\n2\r\n", [b"1\n", b"2\n"]),
        (b"\n\r\n \t\r\n1\n\n", [b"1\n"]),
        (b" {} \r\n", [b" {} \n"]),
        (b"1\r\r\n", [b"1 \n"]),
        (b"1\r", [b"1 \n"]),
        (b"[1,\r2]\n", [b"[1, 2]\n"]),
        (b"\r1\n", [b" 1\n"]),
    ],
)
def test_lines_are_split_at_lf(body: bytes, lines: list[bytes]) -> None:
    """Each line loses its LF and one CR before it, blank ones are skipped, and any other CR becomes a space."""
    assert ndjson_lines(body) == lines


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t\n\r"])
def test_a_body_without_a_report_is_refused(body: bytes) -> None:
    """NDJSON in which no line is left is a bad request, in memory as in chunks."""
    with pytest.raises(BadRequest, match="no report"):
        ndjson_lines(body)
    with pytest.raises(BadRequest, match="no report"):
        fold(NdjsonFolder(), [body])


@pytest.mark.parametrize(
    ("body", "line", "position"),
    [
        (b"x", 1, 0),
        (b"1\n\n  x\n", 3, 2),
        (b'{"a":1}\r\n{"a":}\r\n', 2, 5),
        (b'{"a":\n1}', 1, 5),
        (b'"a\r\n"', 1, 2),
        (b"\x0b\n", 1, 0),
    ],
)
def test_a_bad_line_is_named(body: bytes, line: int, position: int) -> None:
    """The refusal gives the number of the line, blank ones counted, and the byte in it."""
    for chunks in ([body], cut(body, list(range(len(body))))):
        with pytest.raises(BadLine, match=f"^line {line}: not JSON at byte {position}: ") as refusal:
            fold(NdjsonFolder(), chunks)
        assert (refusal.value.line, refusal.value.fault.position) == (line, position)
    with pytest.raises(BadLine, match=f"^line {line}: not JSON at byte {position}: "):
        ndjson_lines(body)


@given(bodies, places)
@example(b"1\r\n2", [2])
@example(b"1\r\r\n2", [2, 3])
@example(b"\r\n1", [1])
@example(b"1\r", [1])
def test_lines_in_chunks_give_the_same(body: bytes, where: list[int]) -> None:
    """An NDJSON folder writes the lines of `ndjson_lines` or refuses in the same words, however the body is cut."""
    assert outcome(NdjsonFolder(), cut(body, where)) == ndjson_at_once(body)
    assert outcome(NdjsonFolder(), cut(body, list(range(len(body))))) == ndjson_at_once(body)


def is_document(line: bytes) -> bool:
    """Tell whether a line is a document by itself."""
    try:
        check(line)
    except NotJson:
        return False
    return True


parts_of_documents = st.sampled_from(
    [
        b"1",
        b"1,2",
        b"1,2,3",
        b"[4",
        b"5]",
        b"1],[2",
        b'{"a":[3',
        b"4]}",
        b'"a',
        b'b"',
        b'"',
        b"]",
        b"[",
        b",",
        b"[[3",
        b"1E400",
        b'"\\ud800"',
    ]
)


@given(st.lists(parts_of_documents, min_size=1, max_size=40))
@example([b"1,2,3", b"[4", b"5]"])
@example([b"1"] * 20 + [b"1,2,3", b"[4", b"5]"] + [b"1"] * 20)
@example([b"1"] * 100_000 + [b"]"])
@example([b"[" * 600 + b"]" * 600] * 3)
@example([b"1", b"[" * 1001 + b"]" * 1001])
def test_lines_are_judged_one_by_one(lines: list[bytes]) -> None:
    """However many are parsed at a time, and whatever they make together, each is judged as if it stood alone."""
    expected = next((index for index, line in enumerate(lines) if not is_document(line)), None)
    found = first_fault(lines, b"\n".join(lines))
    assert (None if found is None else found[0]) == expected


@given(bodies)
def test_what_is_written_is_sound(body: bytes) -> None:
    """Each line that is written ends in its only LF, has no CR, and means what was sent."""
    try:
        lines = ndjson_lines(body)
    except BadRequest:
        return
    for line in lines:
        assert line.endswith(b"\n")
        assert b"\n" not in line[:-1]
        assert b"\r" not in line
    sent = [json.loads(line) for line in body.split(b"\n") if line.strip(b" \t\r")]
    assert [json.loads(line) for line in lines] == sent
    whole = b"".join(lines)
    assert sound_prefix([whole]) == SoundPrefix(lines=len(lines), size=len(whole), fault=None)


@pytest.mark.parametrize("extra", [-1, 0, 1, 100_000])
def test_only_so_much_leading_whitespace_is_kept(extra: int) -> None:
    """Whitespace before a document is kept up to a bound, and no line depends on how it was cut."""
    body = b"0\n" + b" \t" * (LEADING_BYTES // 2) + b" " * max(extra, 0) + b"{} \n"
    body = body if extra >= 0 else body.replace(b"\t{", b"{")
    kept = min(LEADING_BYTES, LEADING_BYTES + extra)
    lines = ndjson_lines(body)
    assert lines == [b"0\n", (b" \t" * LEADING_BYTES)[:kept] + b"{} \n"]
    for step in (1000, 65536, 70_001, len(body)):
        assert fold(NdjsonFolder(), cut(body, list(range(step, len(body), step)))) == b"".join(lines)


@pytest.mark.parametrize(
    ("folder", "head", "unit", "tail"),
    [
        (DocumentFolder(), b'"', b"text " * 50, b'"'),
        (DocumentFolder(), b"[\n", b"1,\n" * 50, b"1]"),
        (NdjsonFolder(), b'"', b"text " * 50, b'"\n'),
        (NdjsonFolder(), b"", b" " * 200, b"1\n"),
        (NdjsonFolder(), b"1\n", b"\r\n" * 100, b""),
        (NdjsonFolder(), b"", b'{"a":"' + b"text " * 200 + b'"}\n', b""),
    ],
    ids=["string", "elements", "long line", "leading whitespace", "blank lines", "lines"],
)
def test_memory_does_not_grow(folder: Folder, head: bytes, unit: bytes, tail: bytes) -> None:
    """A megabyte needs no more memory than a chunk, even when it is one line."""
    chunk = unit * (8192 // len(unit))
    folder.feed(head + chunk)
    tracemalloc.start()
    for _ in range(128):
        folder.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    folder.feed(tail)
    folder.finish()
    assert peak < LEADING_BYTES * 4 + 12 * len(chunk)


# --- lines on disk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segment", "prefix"),
    [
        (b"", SoundPrefix(0, 0, None)),
        (b'1\n{"a":2}\n', SoundPrefix(2, 10, None)),
        (b"1\n22", SoundPrefix(1, 2, "the last line is torn: it has no newline")),
        (b'1\n{"a', SoundPrefix(1, 2, "the last line is torn: it has no newline")),
        (b"1\n\n2\n", SoundPrefix(1, 2, "not JSON at byte 0: the document is empty")),
        (b"1\n  \n2\n", SoundPrefix(1, 2, "not JSON at byte 2: the document is empty")),
        (b"1\n2\n\x00\x00\x00", SoundPrefix(2, 4, "not JSON at byte 0: a value was expected")),
        (b"1\n[\x00\x00\n3\n", SoundPrefix(1, 2, "not JSON at byte 1: a value or ']' was expected")),
        (b"{}{}\n", SoundPrefix(0, 0, "not JSON at byte 2: nothing more was expected")),
        (b'"a\n"\n', SoundPrefix(0, 0, "not JSON at byte 2: the rest of a string was expected")),
    ],
)
def test_a_segment_is_sound_up_to_its_first_fault(segment: bytes, prefix: SoundPrefix) -> None:
    """The sound prefix ends before the first line that is torn, blank or not JSON, however the segment is cut."""
    assert sound_prefix([segment]) == prefix
    assert sound_prefix([bytes([byte]) for byte in segment]) == prefix


@given(bodies, places)
def test_the_sound_prefix_is_as_long_as_can_be(segment: bytes, where: list[int]) -> None:
    """All whole lines before the fault are counted, and the line at the fault is really bad."""
    found = sound_prefix(cut(segment, where))
    assert found == sound_prefix([segment])
    sound, rest = segment[: found.size], segment[found.size :]
    for line in sound.splitlines(keepends=True) if b"\r" not in sound else []:
        check(line)
    assert sound.count(b"\n") == found.lines
    assert (found.fault is None) == (rest == b"")
    line, newline, _ = rest.partition(b"\n")
    if newline:
        with pytest.raises(NotJson):
            check(line)


def test_reading_stops_at_the_fault() -> None:
    """Chunks after the one with the fault are not asked for."""
    chunks = iter([b"1\nx", b"2\n"])
    assert sound_prefix(chunks).size == 2
    assert next(chunks) == b"2\n"
