"""A call that fails leaves nothing behind; when it is given up is told by the tests of the stores."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest

from gateway.aws.stall import Patience, unless_silent


def test_patience_grows_with_what_a_slow_link_may_need() -> None:
    """For a large body it doubles, up to what the slowest link takes for it; for a small one it stays."""
    patience = Patience(60.0)
    large = 5 << 20
    assert patience.for_body(large) == 60.0
    for expected in (120.0, 240.0, 320.0, 320.0):
        patience.ran_out(large, patience.factor)
        assert patience.for_body(large) == expected
        assert patience.for_body(100) == 60.0
    patience.was_enough(100, 0.1)
    patience.was_enough(large, 250.0)
    assert patience.for_body(large) == 320.0
    # Half as large, in less than half of the time that was too short.
    patience.was_enough(large // 2, 29.0)
    assert patience.for_body(large) == 60.0


def test_several_that_run_out_together_count_once() -> None:
    """All of them were sent with the patience that was too short."""
    patience = Patience(60.0)
    factor = patience.factor
    for _ in range(12):
        patience.ran_out(5 << 20, factor)
    assert patience.for_body(5 << 20) == 120.0


class Body:
    """What was to be sent."""


async def test_what_failed_is_not_kept() -> None:
    """A call's error and all that it holds go when the error was handled, without a collector of cycles: outages last long."""
    sent: list[weakref.ref[Body]] = []

    async def call() -> None:
        body = Body()
        sent.append(weakref.ref(body))
        await asyncio.sleep(0)
        raise ConnectionResetError

    gc.disable()
    try:
        with pytest.raises(ConnectionResetError) as caught:
            await unless_silent(call(), lambda: 0, lambda _: 60.0)
        del caught
        await asyncio.sleep(0)
        assert [body() for body in sent] == [None]
    finally:
        gc.enable()


async def test_an_answer_that_came_while_nothing_ran_counts() -> None:
    """A patience that was over while the machine stood still is given once more: the answer may be there."""
    answered = asyncio.get_running_loop().create_future()

    async def call() -> str:
        return str(await answered)

    def stands_still() -> None:
        time.sleep(1.4)
        # Only now does the loop see what has come.
        asyncio.get_running_loop().call_later(0.05, answered.set_result, "taken")

    asyncio.get_running_loop().call_soon(stands_still)
    assert await unless_silent(call(), lambda: 0, lambda _: 0.2) == "taken"


async def test_silence_ends_all_the_same() -> None:
    """Where nothing stood still it is given up."""
    never = asyncio.get_running_loop().create_future()

    async def call() -> None:
        await never

    with pytest.raises(TimeoutError):
        await unless_silent(call(), lambda: 0, lambda _: 0.05)
