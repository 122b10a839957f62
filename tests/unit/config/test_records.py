"""Frozen records out of plain data, read strictly: every key must be known, there, and of its kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest

from gateway.config.records import Faults, key, nearest, read_record, records
from gateway.config.tree import Fault
from gateway.config.values import name, size, text, whole


@dataclass(frozen=True)
class Inner:
    """A record in another."""

    size: Annotated[str, text("digits", r"\d+")]


@dataclass(frozen=True)
class Outer:
    """A record of every kind of field."""

    name: str
    words: tuple[Annotated[str, text("small letters", "[a-z]+")], ...]
    inner: Inner
    many: tuple[Inner, ...]


GIVEN = {"name": "n", "words": ["a", "b"], "inner": {"size": "1"}, "many": [{"size": "2"}]}


def test_plain_data_becomes_a_record() -> None:
    """Texts, lists, records and lists of records are read into fields, lists as tuples."""
    faults: list[Fault] = []
    assert read_record(Outer, GIVEN, faults) == Outer("n", ("a", "b"), Inner("1"), (Inner("2"),))
    assert faults == []


@dataclass(frozen=True)
class Limits:
    """A record whose keys have kinds and defaults, as those of the configuration."""

    name: str
    most: int = key(5, whole(1, 10), "How many.")
    size: int | None = key(None, size(1, 1 << 20), "How large.")


@pytest.mark.parametrize(
    ("change", "path", "sentence"),
    [
        ({"name": None}, "name", "is nothing; it must be a line of text."),
        ({"name": ""}, "name", "is empty, or more than one line; it must be a line of text."),
        ({"name": 3.10}, "name", "is a number unless it is put in quotes; it must be a line of text."),
        ({"words": ["a", "B"]}, "words[1]", "'B' is not right; it must be small letters."),
        ({"words": "a"}, "words", "is text; it must be a list."),
        ({"inner": {"size": "x"}}, "inner.size", "'x' is not right; it must be digits."),
        ({"inner": {"size": "1 "}}, "inner.size", "'1 ' is not right; it must be digits."),
        ({"inner": {"size": True}}, "inner.size", "is a yes or no unless it is put in quotes; it must be digits."),
        ({"inner": ["size"]}, "inner", "is a list; it must be a section with keys of its own."),
        ({"many": [{"size": "1"}, {}]}, "many[1].size", "is missing; it must be digits."),
        ({"other": 1}, "other", "is not a known key."),
    ],
)
def test_a_fault_has_its_path(change: dict[str, object], path: str, sentence: str) -> None:
    """What is wrong gives no record and one fault: the path of the key, what is wrong and what would be right."""
    faults: list[Fault] = []
    assert read_record(Outer, {**GIVEN, **change}, faults) is None
    assert faults == [(path, sentence)]


def test_a_mistyped_key_is_one_fault() -> None:
    """A key that is like a missing one is not reported as missing, too."""
    faults: list[Fault] = []
    given = {each: value for each, value in GIVEN.items() if each != "words"}
    assert read_record(Outer, given | {"wrods": ["a"]}, faults) is None
    assert faults == [("wrods", "is not a known key; the nearest is words.")]


def test_all_faults_are_reported_together() -> None:
    """Several faults of several depths come in the order of the fields, unknown keys first."""
    faults: list[Fault] = []
    assert read_record(Outer, {"name": "n", "words": [1, "B"], "inner": {}, "many": [], "x": 1}, faults) is None
    assert [path for path, _ in faults] == ["x", "words[0]", "words[1]", "inner.size"]


def test_a_map_of_records_is_a_value() -> None:
    """Names lead to records that know theirs; a key that is left out has its default, and faults have whole paths."""
    kind = records(Limits, name(reserved=["all"]))
    assert kind.read({"a": {"most": 7}, "b": None, "c": {"size": "1KiB"}}) == (Limits("a", 7), Limits("b"), Limits("c", 5, 1024))
    assert kind.show((Limits("a", 7), Limits("c", 5, 1024))) == {"a": {"most": 7}, "c": {"size": "1KiB"}}
    assert kind.read(kind.from_text("{a: {most: 7}}")) == (Limits("a", 7),)
    with pytest.raises(Faults) as caught:
        kind.read({"a": {"most": 70, "nme": 1}, "all": {}, "b": 5})
    assert [path for path, _ in caught.value.faults] == ["a.nme", "a.most", "all", "b"]
    with pytest.raises(ValueError, match=r"^is a list$"):
        kind.read(["a"])


def test_the_text_of_a_map_is_read_strictly() -> None:
    """In a variable as in a file a key stands once, and what is no map is said to be none."""
    kind = records(Limits, name())
    with pytest.raises(Faults) as caught:
        kind.from_text("{a: {most: 1, most: 2}}")
    assert caught.value.faults == [("a.most", "is given twice, in line 1 and line 1; only one may stay.")]
    with pytest.raises(ValueError, match=r"^holds no keys"):
        kind.from_text("a")
    with pytest.raises(ValueError, match=r"^is not YAML at line 1"):
        kind.from_text("{a")


def test_nothing_is_suggested_that_is_far_off() -> None:
    """A name that is like none of the known ones comes without a suggestion."""
    assert nearest("zzz", ["image", "build"]) == ""
    assert nearest("imgae", ["image", "build"]) == "; the nearest is image"
