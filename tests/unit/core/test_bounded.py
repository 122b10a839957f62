"""A bounded mapping never grows beyond its bound, and forgets the oldest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bounded import Bounded


@given(st.integers(1, 20), st.lists(st.integers(0, 50), max_size=200))
def test_it_never_grows_beyond_its_bound(most: int, keys: list[int]) -> None:
    """Whatever is set, there are no more keys than its bound, and the last one that was set is there."""
    kept: Bounded[int, int] = Bounded(most)
    for at, key in enumerate(keys):
        kept[key] = at
        assert len(kept) <= most
        assert kept[key] == at


def test_the_older_half_is_forgotten() -> None:
    """With one key too many the older half goes, and the newer half stays."""
    kept: Bounded[int, str] = Bounded(4)
    for key in range(4):
        kept[key] = str(key)
    kept[0] = "again"
    assert list(kept) == [0, 1, 2, 3]
    kept[4] = "4"
    assert kept == {2: "2", 3: "3", 4: "4"}
