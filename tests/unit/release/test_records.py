"""Frozen records out of plain data, read strictly: every key must be known, there, and of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from release.records import Must, nearest, read_record


@dataclass(frozen=True)
class Inner:
    """A record in another."""

    size: Annotated[str, Must(r"\d+", "digits")]


@dataclass(frozen=True)
class Outer:
    """A record of every kind of field."""

    name: str
    words: tuple[Annotated[str, Must("[a-z]+", "small letters")], ...]
    inner: Inner
    many: tuple[Inner, ...]


GIVEN = {"name": "n", "words": ["a", "b"], "inner": {"size": "1"}, "many": [{"size": "2"}]}


def test_plain_data_becomes_a_record() -> None:
    """Texts, lists, records and lists of records are read into fields, lists as tuples."""
    faults: list[str] = []
    assert read_record(Outer, GIVEN, faults) == Outer("n", ("a", "b"), Inner("1"), (Inner("2"),))
    assert faults == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": None}, "name: must be text, not nothing; put it in quotes."),
        ({"name": ""}, "name: '' must be a line of text."),
        ({"words": ["a", "B"]}, "words[1]: 'B' must be small letters."),
        ({"words": "a"}, "words: must be a list, not 'a'."),
        ({"inner": {"size": "x"}}, "inner.size: 'x' must be digits."),
        ({"inner": {"size": "1 "}}, "inner.size: '1 ' must be digits."),
        ({"inner": {"size": True}}, "inner.size: must be text, not True; put it in quotes."),
        ({"many": [{"size": "1"}, {}]}, "many[1].size: is missing."),
        ({"other": 1}, "other: is no key."),
    ],
)
def test_a_fault_is_one_line_with_its_path(change: dict[str, object], told: str) -> None:
    """What is wrong gives no record and one line, which begins with the path of the key."""
    faults: list[str] = []
    assert read_record(Outer, {**GIVEN, **change}, faults) is None
    assert faults == [told]


def test_nothing_is_suggested_that_is_far_off() -> None:
    """A name that is like none of the known ones comes without a suggestion."""
    assert nearest("zzz", ["image", "build"]) == ""
    assert nearest("imgae", ["image", "build"]) == " (did you mean image?)"
