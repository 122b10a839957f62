"""A call that is given up when nothing of it moves any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unless_silent(call: Coroutine[Any, Any, T], position: Callable[[], int], patience_s: float) -> T:
    """Give the answer of a call that sends a body.

    The HTTP client's own timeout begins when the body is sent: it bounds neither the wait for `100 Continue` nor a peer that
    takes no more bytes, and either may last for ever.

    Args:
        call: ends by itself once it has sent the body.
        position: how far the body was read.
        patience_s: given up if the position has not moved for so long, or twice that at the most: it is looked at once in it.

    Raises:
        TimeoutError: it was given up, and cancelled. What was sent may have arrived.
    """
    running = asyncio.ensure_future(call)
    before = -1
    try:
        while not (await asyncio.wait({running}, timeout=patience_s))[0]:
            if (now := position()) == before:
                raise TimeoutError(f"nothing was taken or answered for {patience_s:g} seconds or more")
            before = now
        return running.result()
    finally:
        running.cancel()
        await asyncio.wait({running})
        # Its error knows this frame: kept here, the two would wait for the collector of cycles, with all that was to be sent.
        del running
