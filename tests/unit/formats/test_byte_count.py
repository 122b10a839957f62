"""However rare a byte is, it is counted right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.formats import byte_count

texts = st.text("ab\n", max_size=200).map(str.encode) | st.binary(max_size=200)


@given(texts)
def test_all_are_counted(data: bytes) -> None:
    """Few or many, the count is that of a plain count."""
    assert byte_count.count(data, b"\n") == data.count(b"\n")


@pytest.mark.parametrize("every", [1, 2, 31, 32, 33, 64, 1000, 100_000])
def test_a_large_text(every: int) -> None:
    """The count does not depend on how rare the byte is."""
    data = (b"x" * (every - 1) + b"\n") * (1_000_000 // every) + b"rest"
    assert byte_count.count(data, b"\n") == 1_000_000 // every


@given(texts, st.integers(0, 50))
def test_a_count_may_end_early(data: bytes, most: int) -> None:
    """Up to `most` it is right, and past that it is above it."""
    found = byte_count.count_up_to(data, b"\n", most)
    assert found == data.count(b"\n") or most < found <= data.count(b"\n")
