"""Waits for conditions, each with a deadline that slow machines can stretch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from testkit.servers.minio import TIMEOUT_FACTOR

T = TypeVar("T")

# The longer it takes, the rarer the looks, some of which cost the machine more than what they wait for.
_LEAST_PAUSE_S, _MOST_PAUSE_S, _PAUSE_SHARE = 0.02, 0.5, 0.05


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
