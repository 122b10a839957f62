"""Waits for conditions, each with a deadline that slow machines can stretch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Slow machines set this above 1; every deadline in the tests is multiplied by it.
TIMEOUT_FACTOR = float(os.environ.get("GATEWAY_TEST_TIMEOUT_FACTOR", "1"))

# The longer it takes, the rarer the looks, some of which cost the machine more than what they wait for.
_LEAST_PAUSE_S, _MOST_PAUSE_S, _PAUSE_SHARE = 0.02, 0.5, 0.05
# Of work, by which it is measured how busy the machine is.
_MOMENT_S = 0.1


def until(condition: Callable[[], T], what: str, *, timeout_s: float = 30.0) -> T:
    """Return the first truthy answer of the condition; fail with `what` was waited for when the deadline passes.

    The condition may take long itself: it is asked at least twice.
    """
    began = time.monotonic()
    deadline = began + timeout_s * TIMEOUT_FACTOR
    asked = 0
    while not (answer := condition()):
        asked += 1
        assert asked < 2 or time.monotonic() < deadline, f"waited {timeout_s * TIMEOUT_FACTOR:g} s for {what}"
        # A pause between two looks, and no wait for the thing itself: that is bounded by the deadline alone.
        time.sleep(min(max(_LEAST_PAUSE_S, _PAUSE_SHARE * (time.monotonic() - began)), _MOST_PAUSE_S))
    return answer


def slowness() -> float:
    """How many times longer than its processor time a moment of work takes here and now: above 1 where others use the cores."""
    begun, spent = time.perf_counter(), time.process_time()
    while time.process_time() - spent < _MOMENT_S:
        continue
    return max(1.0, (time.perf_counter() - begun) / _MOMENT_S) * TIMEOUT_FACTOR


def since(begun: float) -> float:
    """Seconds since an instant of the monotonic clock, as they would be on a machine that does nothing else.

    For bounds that say "at once, and not after its timeout", which must hold on a busy machine, too.
    """
    return (time.monotonic() - begun) / slowness()
