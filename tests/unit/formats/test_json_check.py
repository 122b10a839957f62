"""The grammar decides what is JSON, however a document is cut into chunks."""

from __future__ import annotations

import json
import random
import re
import tracemalloc
from itertools import pairwise
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.formats.json_check import MAX_DEPTH, QUICK_BYTES, NotJson, Recognizer, are_surely_json, check

GOOD = {
    "a null": b"null",
    "a true": b"true",
    "a false": b"false",
    "a string": b'"text"',
    "an empty string": b'""',
    "a zero": b"0",
    "a minus zero": b"-0",
    "an exponent without a sign": b"1e5",
    "an exponent with a plus": b"1E+05",
    "a fraction and an exponent": b"-12.340e-56",
    "a number no double can hold": b"1e400",
    "an integer of 40 digits": b"1234567890" * 4,
    "an empty array": b"[]",
    "an empty object": b"{}",
    "empty containers with space in them": b"[ { \r\n } , [ \t ] ]",
    "whitespace everywhere": b' \t\r\n{ "a" : [ 1 , 2 ] , "b" : { } } \n',
    "one name twice": b'{"a":1,"a":2}',
    "an empty name": b'{"":0}',
    "every escape": rb'"\"\\\/\b\f\n\r\t\u00e9\uABCD"',
    "a lone high surrogate as an escape": rb'"\ud800"',
    "a lone low surrogate as an escape": rb'"\udFFf"',
    "a NUL as an escape": rb'"\u0000"',
    "DEL in a string": b'"\x7f"',
    "two bytes a character": "\u0080\u07ff".join('""').encode(),
    "three bytes a character": "\u0800\ud7ff\ue000\uffff".join('""').encode(),
    "four bytes a character": "\U00010000\U0010ffff".join('""').encode(),
    "brackets in strings": b'["]", "[", {"}": "{"}, "\\"]"]',
    "the deepest nesting": b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    "the deepest nesting of objects": b'{"":' * MAX_DEPTH + b"0" + b"}" * MAX_DEPTH,
    "much in the deepest array": b"[" * MAX_DEPTH + b"1,2,3" + b"]" * MAX_DEPTH,
    "many containers, none deep": b"[" + b"[{}]," * MAX_DEPTH + b"[]]",
}

# Each with the byte at which it stops being JSON, and why.
BAD = {
    "nothing": (b"", 0, "the document is empty"),
    "only whitespace": (b" \n\t\r", 4, "the document is empty"),
    "a BOM": (b"\xef\xbb\xbf1", 0, "a value was expected"),
    "NaN": (b"NaN", 0, "a value was expected"),
    "Infinity": (b"[Infinity]", 1, "a value or ']' was expected"),
    "minus Infinity": (b"-Infinity", 1, "a digit was expected"),
    "a word in capitals": (b"True", 0, "a value was expected"),
    "half a word": (b"[nul]", 4, "true, false or null was expected"),
    "a word and more": (b"[nulls]", 5, "',' or ']' was expected"),
    "a trailing comma in an array": (b"[1,]", 3, "a value was expected"),
    "a trailing comma in an object": (b'{"a":1,}', 7, "a name was expected"),
    "a trailing comma before space": (b'[[1, ],{"a":1 , }]', 5, "a value was expected"),
    "a trailing comma in an inner array": (b"[[1 , ], 2]", 6, "a value was expected"),
    "a trailing comma in an inner object": (b'[{"a":1 , }, 2]', 10, "a name was expected"),
    "a leading comma": (b"[,1]", 1, "a value or ']' was expected"),
    "two commas": (b"[1,,2]", 3, "a value was expected"),
    "no comma": (b"[1 2]", 3, "',' or ']' was expected"),
    "a leading zero": (b"[01]", 2, "',' or ']' was expected"),
    "a leading zero after a minus": (b"-01", 2, "nothing more was expected"),
    "a plus": (b"+1", 0, "a value was expected"),
    "a number that begins with a point": (b".5", 0, "a value was expected"),
    "a number that ends in a point": (b"[1.]", 3, "a digit was expected"),
    "a number that ends in a point before a comma": (b"[1., 2]", 3, "a digit was expected"),
    "a number that ends in e": (b"[1e]", 3, "a digit, + or - was expected"),
    "a number that ends in e before a comma": (b"[1e,1]", 3, "a digit, + or - was expected"),
    "a number that ends in e+": (b"[1e+]", 4, "a digit was expected"),
    "a lone minus": (b"-", 1, "a digit was expected"),
    "a hexadecimal number": (b"0x10", 1, "nothing more was expected"),
    "a line comment": (b"1 // one", 2, "nothing more was expected"),
    "a block comment": (b"[/* */]", 1, "a value or ']' was expected"),
    "a second document": (b"{} {}", 3, "nothing more was expected"),
    "a comma after the document": (b"[],", 2, "nothing more was expected"),
    "a closing bracket too many": (b"[[1]]]", 5, "nothing more was expected"),
    "the wrong closing bracket": (b'[{"a":[1}]', 8, "',' or ']' was expected"),
    "the wrong closing bracket far out": (b"[[[[[[1]]]}]]", 10, "',' or ']' was expected"),
    "an array closed as an object": (b"[}", 1, "a value or ']' was expected"),
    "an object closed as an array": (b"{]", 1, "a name or '}' was expected"),
    "an open array": (b"[1", 2, "',' or ']' was expected"),
    "an open object": (b'{"a"', 4, "':' was expected"),
    "an open string": (b'"text', 5, "the rest of a string was expected"),
    "an element in an object": (b"{1}", 1, "a name or '}' was expected"),
    "a member in an array": (b'["a":1]', 4, "',' or ']' was expected"),
    "an object without a value": (b'{"a":}', 5, "a value was expected"),
    "an object without a colon": (b'{"a" 1}', 5, "':' was expected"),
    "single quotes": (b"['a']", 1, "a value or ']' was expected"),
    "an unknown escape": (rb'"\x41"', 2, "an escape was expected"),
    "an escape with too few digits": (rb'"\u12"', 5, "a hexadecimal digit was expected"),
    "an escape in braces": (rb'"\u{41}"', 3, "a hexadecimal digit was expected"),
    "a newline in a string": (b'"a\nb"', 2, "the rest of a string was expected"),
    "a tab in a name": (b'{"a\t":1}', 3, "the rest of a string was expected"),
    "a NUL in a string": (b'"\x00"', 1, "the rest of a string was expected"),
    "zeroes": (b"\x00\x00\x00", 0, "a value was expected"),
    "a NUL behind the document": (b"1\x00", 1, "nothing more was expected"),
    "a form feed as whitespace": (b"[\x0c1]", 1, "a value or ']' was expected"),
    "a no-break space as whitespace": (b"[\xc2\xa01]", 1, "a value or ']' was expected"),
    "a stray continuation byte": (b'"\x80"', 1, "not UTF-8"),
    "an overlong slash": (b'"\xc0\xaf"', 1, "not UTF-8"),
    "an overlong form of three bytes": (b'"\xe0\x80\xaf"', 1, "not UTF-8"),
    "an overlong form of four bytes": (b'"\xf0\x80\x80\xaf"', 1, "not UTF-8"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', 1, "not UTF-8"),
    "a character past the last": (b'"\xf4\x90\x80\x80"', 1, "not UTF-8"),
    "a byte that UTF-8 never has": (b'"a\xff"', 2, "not UTF-8"),
    "a cut character": (b'"\xe2\x82"', 1, "not UTF-8"),
    "a cut character at the end": (b'"\xf0\x9f\x98', 1, "not UTF-8"),
    "UTF-16": ('"a"'.encode("utf-16-le"), 1, "the rest of a string was expected"),
    "arrays too deep": (b"[" * (MAX_DEPTH + 1), MAX_DEPTH, "nested deeper than 1,000"),
    "objects too deep": (b'{"":' * (MAX_DEPTH + 1), 4 * MAX_DEPTH, "nested deeper than 1,000"),
    "a whole array too deep": (
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        MAX_DEPTH,
        "nested deeper than 1,000",
    ),
    "a flat array too deep": (
        b"[" * MAX_DEPTH + b"1,[2]" + b"]" * MAX_DEPTH,
        MAX_DEPTH + 2,
        "nested deeper than 1,000",
    ),
    "an array too deep on the way back": (
        b"[" * MAX_DEPTH + b"1],[[2]]" + b"]" * MAX_DEPTH,
        MAX_DEPTH + 4,
        "nested deeper than 1,000",
    ),
}


def fault(chunks: list[bytes]) -> tuple[int, str] | None:
    """Give what a recognizer says of a document that comes in these chunks: None when it is JSON."""
    recognizer = Recognizer()
    try:
        for chunk in chunks:
            recognizer.feed(chunk)
        recognizer.finish()
    except NotJson as refusal:
        return refusal.position, refusal.reason
    return None


def checked(document: bytes) -> tuple[int, str] | None:
    """Give what `check` says of a document: None when it is JSON."""
    try:
        check(document)
    except NotJson as refusal:
        return refusal.position, refusal.reason
    return None


def cut(document: bytes, places: list[int]) -> list[bytes]:
    """Cut a document into chunks; some may be empty."""
    edges = [0, *sorted(min(place, len(document)) for place in places), len(document)]
    return [document[start:end] for start, end in pairwise(edges)]


def bytewise(document: bytes) -> list[bytes]:
    """Cut a document into chunks of one byte."""
    return [bytes([byte]) for byte in document]


def strictly_json(document: bytes) -> bool:
    """Tell what the standard library thinks, with the taste of RFC 8259 in numbers."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        # A number is taken as a string: its size is not the grammar's business.
        json.loads(document.decode("utf-8"), parse_constant=refuse, parse_int=str)
    except ValueError:
        return False
    return True


# --- documents to try --------------------------------------------------------------------------------------------

blanks = st.sampled_from([b"", b"", b"", b" ", b"\n", b"\t\r "])
strings = st.lists(
    st.sampled_from(["a", "[", "]", "{", "}", ",", ":", '\\"', "\\\\", "\\u00e9", "\\ud800", "é", "€", "😀", "\x7f"]),
    max_size=6,
).map(lambda parts: f'"{"".join(parts)}"'.encode())
scalars = strings | st.sampled_from(
    [b"0", b"-0", b"12", b"-3.25", b"0.0e1", b"1e400", b"1E+2", b"7e-7", b"9" * 30, b"true", b"false", b"null"]
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Draw a JSON text with spaces in odd places, sometimes deeper than a leap looks."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    parts = draw(st.lists(scalars, min_size=1, max_size=8))
    names, spaces = draw(st.lists(strings, min_size=1, max_size=4)), draw(st.lists(blanks, min_size=1, max_size=5))

    def space() -> bytes:
        return rng.choice(spaces)

    def value(depth: int) -> bytes:
        if depth == 0 or rng.random() < 0.3:
            return rng.choice(parts)
        inner = [value(depth - 1) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        if rng.random() < 0.5:
            return b"[" + space() + (space() + b"," + space()).join(inner) + space() + b"]"
        members = [rng.choice(names) + space() + b":" + space() + one for one in inner]
        return b"{" + space() + (space() + b"," + space()).join(members) + space() + b"}"

    return space() + value(draw(st.integers(0, 9))) + space()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a JSON text in which a few bytes were removed, replaced, inserted or swapped."""
    document = bytearray(draw(documents()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(document) - 1)))
        bad = draw(st.sampled_from(b'[]{},:"\\ 01-.eEtn\n\x00\x80\xe2\xed\xf0\xff'))
        match draw(st.sampled_from(["remove", "replace", "insert", "swap"])):
            case "remove":
                del document[at : at + 1]
            case "replace":
                document[at : at + 1] = bytes([bad])
            case "insert":
                document.insert(at, bad)
            case _:
                document[at : at + 2] = document[at : at + 2][::-1]
    return bytes(document)


anything = documents() | damaged() | st.binary(max_size=40) | st.text('[]{},:"\\u1e.- tn', max_size=30).map(str.encode)
places = st.lists(st.integers(0, 400), max_size=8)


# --- the grammar -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", GOOD.values(), ids=GOOD.keys())
def test_accepts_what_the_grammar_allows(document: bytes) -> None:
    """A document of the grammar is accepted, whole and byte by byte."""
    assert fault([document]) is None
    assert fault(bytewise(document)) is None
    assert checked(document) is None


@pytest.mark.parametrize(("document", "position", "reason"), BAD.values(), ids=BAD.keys())
def test_refuses_what_the_grammar_forbids(document: bytes, position: int, reason: str) -> None:
    """What is not of the grammar is refused with its first impossible byte, whole and byte by byte."""
    assert fault([document]) == (position, reason)
    assert fault(bytewise(document)) == (position, reason)
    assert checked(document) == (position, reason)


@given(anything)
@example(b'{"a": [[[[[[1]]]]], "b": {}}')
def test_agrees_with_the_standard_library(document: bytes) -> None:
    """The recognizer accepts exactly what the standard library's parser accepts without its liberties."""
    assert (fault([document]) is None) == strictly_json(document)


@given(anything)
def test_accepts_all_that_the_fast_parser_accepts(document: bytes) -> None:
    """What the fast parser takes for JSON, and is UTF-8, the recognizer does too: `check` may trust its yes."""
    if are_surely_json([document], document):
        assert fault([document]) is None


@given(anything)
def test_check_agrees_with_the_recognizer(document: bytes) -> None:
    """The quick way gives the verdict, position and reason of the slow one."""
    assert checked(document) == fault([document])


# --- chunks ------------------------------------------------------------------------------------------------------


@given(anything, places)
@example(b'[12,"a":1]', [2])
@example(b'{"a":12,3}', [6])
@example(b"[[12],3}", [3])
def test_chunks_make_no_difference(document: bytes, where: list[int]) -> None:
    """Verdict, position and reason are the same however a document is cut."""
    whole = fault([document])
    assert fault(cut(document, where)) == whole
    assert fault(bytewise(document)) == whole


@given(anything, st.integers(1, 8), places)
@example(b"[[[],[[]]]]", 3, [])
@example(b"[[[1]],[[[0]]],2]", 3, [])
@example(b"[[[[1]]],[[[[0]]]],2]", 4, [])
@example(b"[[12,[0]]]", 2, [3])
@example(b'{"a":12,[],3]', 8, [6])
def test_depth_is_counted_the_same_in_any_chunks(document: bytes, limit: int, where: list[int]) -> None:
    """Whatever the limit is, the byte that passes it is found whether a match swallows it or a single token."""
    with patch("gateway.formats.json_check.MAX_DEPTH", limit):
        expected = fault(bytewise(document))
        assert fault([document]) == expected
        assert fault(cut(document, where)) == expected


@given(documents(), st.integers(1, 8))
def test_the_first_bracket_too_deep_is_found(document: bytes, limit: int) -> None:
    """Of a good document that is nested too deep the first bracket past the limit is named."""
    depth, position = 0, None
    for found in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', document):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
        if depth > limit:
            position = found.start()
            break
    with patch("gateway.formats.json_check.MAX_DEPTH", limit):
        refusal = fault([document])
    assert (refusal and refusal[0]) == position


@pytest.mark.parametrize(
    ("head", "unit", "tail"),
    [
        (b'"', b"text " * 50, b'"'),
        (b'"', rb"\u0041" * 50, b'"'),
        (b'"', "\u00e9".encode() * 50, b'"'),
        (b"", b"1" * 200, b""),
        (b"0.", b"1" * 200, b"e5"),
        (b"", b" " * 200, b"1"),
        (b"[", b"1," * 100, b"1]"),
        (b"[", b'{"a":[1,2]},' * 20, b"1]"),
        (b"{", b'"a":{"b":[]},' * 20, b'"":1}'),
        (b"[", b"[" * 900 + b"]" * 900 + b",", b"1]"),
    ],
    ids=["string", "escapes", "characters", "number", "fraction", "whitespace", "elements", "rows", "members", "deep"],
)
def test_memory_does_not_grow(head: bytes, unit: bytes, tail: bytes) -> None:
    """Eight megabytes need no more memory than a chunk, even when they are one token."""
    recognizer = Recognizer()
    chunk = unit * (65536 // len(unit))
    recognizer.feed(head)
    recognizer.feed(chunk)
    tracemalloc.start()
    for _ in range(128):
        recognizer.feed(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    recognizer.feed(tail)
    recognizer.finish()
    assert peak < 12 * len(chunk)


# --- the rest of the interface -----------------------------------------------------------------------------------


def test_tells_a_client_where_and_why() -> None:
    """The refusal is a bad request whose text names the byte and what was expected there."""
    with pytest.raises(BadRequest) as refusal:
        check(b'["a", "b", 12345}')
    assert str(refusal.value) == "not JSON at byte 16: ',' or ']' was expected"


def test_is_blank_until_something_comes() -> None:
    """A recognizer is blank as long as only JSON whitespace has come."""
    recognizer = Recognizer()
    seen = [recognizer.blank]
    for chunk in (b" \r\n\t", b"1", b" "):
        recognizer.feed(chunk)
        seen.append(recognizer.blank)
    assert seen == [True, True, False, False]


@pytest.mark.parametrize("begun", [b"[[", b'"\\u1', b'"\xe2', b"{}", b"x"])
def test_begins_anew_after_a_reset(begun: bytes) -> None:
    """A reset recognizer has forgotten what it was in the middle of, faults too."""
    recognizer = Recognizer()
    try:
        recognizer.feed(begun)
    except NotJson:
        assert begun == b"x"
    recognizer.reset()
    assert recognizer.blank
    recognizer.feed(b" 12")
    recognizer.finish()
    recognizer.reset()
    with pytest.raises(NotJson, match=r"byte 1: a value or '\]'"):
        recognizer.feed(b"[x")


def test_large_documents_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that a fast parse would take long for goes to the recognizer alone."""
    parsed: list[int] = []
    monkeypatch.setattr("gateway.formats.json_check._skip", lambda document: parsed.append(len(document)))
    check(b'"' + b"x" * QUICK_BYTES + b'"')
    assert parsed == []
    check(b'"x"')
    assert parsed == [3]
