"""A body has to come at the least rate on the whole, after a grace."""

from __future__ import annotations

import math

import pytest

from gateway.intake.pace import CREDIT_TIMEOUTS, MEASURED_S, Pace

RATE, TIMEOUT_S = 100, 60.0


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Give the instant."""
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands."""
    return Clock()


def test_without_a_rate_a_body_has_all_the_time(clock: Clock) -> None:
    """A rate of 0 is no bound."""
    pace = Pace(0, TIMEOUT_S, clock)
    clock.now_s += 1e6
    pace.came(1)
    assert pace.left_s() == math.inf


def test_a_body_has_a_grace(clock: Clock) -> None:
    """Within the grace a body may be as slow as it likes, and after it not."""
    pace = Pace(RATE, TIMEOUT_S, clock)
    assert pace.left_s() == TIMEOUT_S
    clock.now_s += TIMEOUT_S
    assert pace.left_s() == 0


def test_what_came_counts_for_the_whole_body(clock: Clock) -> None:
    """A body that came at twice the rate may pause for as long as it took."""
    pace = Pace(RATE, TIMEOUT_S, clock)
    for _ in range(100):
        clock.now_s += 1
        pace.came(2 * RATE)
    assert pace.left_s() == pytest.approx(100)


def test_a_byte_now_and_then_is_too_slow(clock: Clock) -> None:
    """Who sends most of a body at once and then a byte every 20 seconds has what was sent as credit, and no more."""
    pace = Pace(RATE, TIMEOUT_S, clock)
    pace.came(150 * RATE)
    begun = clock.now_s
    while pace.left_s() > 0:
        clock.now_s += 20
        pace.came(1)
    assert 150 <= clock.now_s - begun <= 180


def test_credit_is_bounded(clock: Clock) -> None:
    """Who has sent very much does not hold the connection for days with a byte now and then."""
    pace = Pace(RATE, TIMEOUT_S, clock)
    pace.came(10**9)
    begun = clock.now_s
    while pace.left_s() > 0:
        clock.now_s += 20
        pace.came(1)
    assert clock.now_s - begun <= CREDIT_TIMEOUTS * TIMEOUT_S + 40


def test_while_the_gateway_writes_the_time_stands_still(clock: Clock) -> None:
    """A slow disk is not the client's fault."""
    pace = Pace(RATE, TIMEOUT_S, clock)
    with pace.standing():
        clock.now_s += 10_000
    assert pace.left_s() == TIMEOUT_S


def test_the_speed_is_that_of_late(clock: Clock) -> None:
    """What came long ago says nothing of how fast a body is now."""
    pace = Pace(RATE, TIMEOUT_S, clock)
    assert pace.speed() is None
    pace.came(10**6)
    clock.now_s += MEASURED_S
    pace.came(1)
    assert pace.speed() == pytest.approx(200_000, rel=0.01)
    clock.now_s += MEASURED_S
    assert pace.speed() == 0
