"""Parameters of header fields, as clients write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.header_parameters import extended, parameters_of, unquoted


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text/plain", []),
        ("", []),
        ("text/plain; charset=Shift_JIS", [("charset", "Shift_JIS")]),
        ('text/plain;Charset="UTF-8" ;\tformat=flowed', [("charset", '"UTF-8"'), ("format", "flowed")]),
        ("text/plain;; ;", []),
        ('a; x="1;2"; y="a\\"b"', [("x", '"1;2"'), ("y", '"a\\"b"')]),
        ('form-data; filename="日本.png"', [("filename", '"日本.png"')]),
        ("multipart/form-data; boundary=a/b=c?d", [("boundary", "a/b=c?d")]),
        ("a; x=", [("x", "")]),
        ('form-data; name="a\\"; filename="C:\\"', [("name", '"a\\"'), ("filename", '"C:\\"')]),
    ],
)
def test_parameters_are_found(value: str, expected: list[tuple[str, str]]) -> None:
    """Every parameter is given in its order, its name in lower case, its value as it was sent."""
    assert parameters_of(value) == expected


@pytest.mark.parametrize("value", ['a; x="1', "a; x", "a; x =1", "a; x= 1", 'a; x="1"2', "a; =1", "a; x=1 y=2", "a; 日=1"])
def test_malformed_parameters_are_none(value: str) -> None:
    """Where one parameter is malformed none is given."""
    assert parameters_of(value) is None


@given(st.text(st.sampled_from('a;= "\\\t日*')))
def test_any_text_is_read(value: str) -> None:
    """Whatever stands in a field, it is read to its end or refused."""
    for _, raw in parameters_of(value) or ():
        assert raw in value
        unquoted(raw)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("token", "token"),
        ('"a b"', "a b"),
        (r'"a\"b"', 'a"b'),
        ('"a\\"', "a\\"),
        (r'"C:\new\a.png"', r"C:\new\a.png"),
        (r'"a\\b"', r"a\b"),
        ('""', ""),
    ],
)
def test_a_value_stands_for_a_text(value: str, expected: str) -> None:
    """Quotes are taken off, and a backslash escapes a quote or a backslash, and is kept before all else."""
    assert unquoted(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("utf-8''%E6%97%A5.png", "日.png"),
        ("UTF-8'ja'a%20b", "a b"),
        ("iso-8859-1''%E9", "é"),
        ("\"utf-8''%41\"", "A"),
        ("utf-8''%FF", "\udcff"),
        ("shift_jis''%93%FA", None),
        ("plain.png", None),
    ],
)
def test_an_extended_value_is_decoded(value: str, expected: str | None) -> None:
    """A value of RFC 8187 is decoded by the charset that it names, if that is one of the two which the RFC has."""
    assert extended(value) == expected
