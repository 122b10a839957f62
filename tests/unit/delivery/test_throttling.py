"""A store that throttles is asked as often as it takes what it is asked."""

from __future__ import annotations

import random

from gateway.delivery.throttling import Throttling


def test_the_wait_follows_the_share_that_is_taken() -> None:
    """Below a second where one of ten is taken, whatever their order; a few hundredths after the first refusal."""
    throttling, chance = Throttling(), random.Random(7)
    assert throttling.refused(60.0) < 0.01
    waits = []
    for _ in range(2000):
        if chance.random() < 0.1:
            throttling.took()
        else:
            waits.append(throttling.refused(60.0))
    assert 0.02 < sorted(waits)[len(waits) // 2] < 0.1
    assert max(waits) < 2.0


def test_where_nothing_is_taken_the_wait_grows_to_the_longest() -> None:
    """As for any store that is away."""
    throttling = Throttling()
    waits = [throttling.refused(60.0) for _ in range(300)]
    assert waits == sorted(waits)
    assert waits[50] < 1.0
    assert waits[200] == waits[-1] == 60.0


def test_it_is_over_when_nearly_all_is_taken() -> None:
    """Some fifty in a row; not with the first one that is taken."""
    throttling = Throttling(lambda: 0.0)
    for _ in range(100):
        throttling.refused(60.0)
    throttling.took()
    assert throttling.is_on
    for _ in range(100):
        throttling.took()
    assert not throttling.is_on


def test_it_is_over_after_a_while_without_a_refusal() -> None:
    """A stream that sends one object in ten minutes would else never hear that it is over."""
    now_s = [0.0]
    throttling = Throttling(lambda: now_s[0])
    throttling.refused(60.0)
    seen = []
    for now_s[0] in (1.0, 10.0):
        throttling.took()
        seen.append(throttling.is_on)
    assert seen == [True, False]
    assert throttling.refused(60.0) < 0.01
