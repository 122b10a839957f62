"""What a client said of a file is found again beside it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool.sidecar import Sidecar


@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 1 << 62))
def test_a_sidecar_is_read_back(text: str, number: int) -> None:
    """Whatever a client sent, a sidecar is one line of ASCII from which all of it is found again."""
    sidecar = Sidecar("ab" * 16, text, text[::-1], "image/png", number, number, "cd" * 32)
    data = sidecar.to_json()
    assert data.isascii()
    assert data.count(b"\n") == 1
    assert Sidecar.from_json(data) == sidecar


OLD = (
    b'{"id": "abababababababababababababababab", "user": "u", "uri": "a", "type": "image/png", "received": 1, "size": 2, '
    b'"sha256": "cd"}\n'
)


def test_a_sidecar_without_form_is_as_before() -> None:
    """A sidecar that was written before there were forms is read, and that of a plain body is still written so."""
    plain = Sidecar("ab" * 16, "u", "a", "image/png", 1, 2, "cd")
    assert Sidecar.from_json(OLD) == plain
    assert plain.to_json() == OLD


@given(st.text(st.characters(exclude_categories=[])), st.lists(st.tuples(st.text(), st.text())))
def test_what_a_form_said_is_read_back(filename: str, fields: list[tuple[str, str]]) -> None:
    """The filename and the fields of a form are found again, in their order, names that come twice too."""
    sidecar = Sidecar("ab" * 16, "u", "a", "image/png", 1, 2, "cd" * 32, filename, tuple(fields))
    assert Sidecar.from_json(sidecar.to_json()) == sidecar


@pytest.mark.parametrize("fields", [7, [7], ["abc"], [["a"]], [["a", "b", "c"]], None])
def test_spoiled_fields_of_a_form_are_an_error(fields: object) -> None:
    """A sidecar whose fields are no pairs is none."""
    with pytest.raises(ValueError):  # noqa: PT011 (Python's own words for it differ)
        Sidecar.from_json(json.dumps(json.loads(OLD) | {"fields": fields}).encode())


def test_a_sidecar_of_a_later_version_is_read() -> None:
    """A field that this version does not know is no error, a missing one is."""
    fields = json.loads(Sidecar("ab" * 16, "u", "a", "image/png", 1, 2, "cd" * 32).to_json())
    assert Sidecar.from_json(json.dumps(fields | {"new": 1}).encode()).size == 2
    del fields["uri"]
    with pytest.raises(ValueError, match="uri"):
        Sidecar.from_json(json.dumps(fields).encode())
