"""A call that fails leaves nothing behind; when it is given up is told by the tests of the stores."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from gateway.stores.silence import unless_silent


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
            await unless_silent(call(), lambda: 0, 60.0)
        del caught
        await asyncio.sleep(0)
        assert [body() for body in sent] == [None]
    finally:
        gc.enable()
