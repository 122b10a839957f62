"""What a client said of a file is found again beside it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sidecar import Sidecar


@given(st.text(st.characters(exclude_categories=[])), st.integers(0, 1 << 62))
def test_a_sidecar_is_read_back(text: str, number: int) -> None:
    """Whatever a client sent, a sidecar is one line of ASCII from which all of it is found again."""
    sidecar = Sidecar("ab" * 16, text, text[::-1], "image/png", number, number, "cd" * 32)
    data = sidecar.to_json()
    assert data.isascii()
    assert data.count(b"\n") == 1
    assert Sidecar.from_json(data) == sidecar


def test_a_sidecar_of_a_later_version_is_read() -> None:
    """A field that this version does not know is no error, a missing one is."""
    fields = json.loads(Sidecar("ab" * 16, "u", "a", "image/png", 1, 2, "cd" * 32).to_json())
    assert Sidecar.from_json(json.dumps(fields | {"new": 1}).encode()).size == 2
    del fields["uri"]
    with pytest.raises(ValueError, match="uri"):
        Sidecar.from_json(json.dumps(fields).encode())
