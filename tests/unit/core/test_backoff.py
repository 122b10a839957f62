"""Waits grow, stay bounded, and differ from gateway to gateway."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.backoff import Doubling, RetryPolicy
from gateway.core.errors import ObjectRefused, Refused, StoreError, Transient

POLICY = RetryPolicy(1.0, 60.0, 300.0)
AWAY, NO = Transient("away"), Refused("no")


@pytest.mark.parametrize(("failures", "wait_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (10**6, 60.0)])
def test_waits_double_up_to_a_bound(failures: int, wait_s: float) -> None:
    """Each failure in a row doubles the wait, to the longest one and not beyond, for however long the store is away."""
    assert POLICY.wait_s(failures, AWAY, lambda: 1.0) == wait_s


@pytest.mark.parametrize("error", [NO, ObjectRefused("not this one")])
def test_a_refusal_is_asked_more_rarely(error: StoreError) -> None:
    """What a person has to mend is tried again at its own, longer interval."""
    assert POLICY.wait_s(10**6, error, lambda: 1.0) == 300.0


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_half_of_a_wait_is_jitter(failures: int, random: float) -> None:
    """A wait is never shorter than half of its bound and never longer than all of it."""
    longest = POLICY.wait_s(failures, AWAY, lambda: 1.0)
    assert longest / 2 <= POLICY.wait_s(failures, AWAY, lambda: random) <= longest


def test_jitter_spreads() -> None:
    """Two gateways that failed together come back apart."""
    assert POLICY.wait_s(5, AWAY, lambda: 0.1) != POLICY.wait_s(5, AWAY, lambda: 0.9)


def test_pauses_double_up_to_the_longest() -> None:
    """Each pause is twice the one before it, until the longest; they begin anew, or go on with the longest, when asked to."""
    pauses = Doubling(1.0, 5.0)
    assert [pauses.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    pauses.reset()
    assert pauses.pause_s == pauses.next() == 1.0
    pauses.stretch()
    assert [pauses.next(), pauses.next()] == [5.0, 5.0]
