"""A call that is given up when nothing of it moves any more.

That a body was read says that the kernel has it, not that the store has: between the two there may be megabytes of buffers,
the kernel's and those of a tunnel or a proxy, and a slow link takes minutes to empty them. So where a call that had sent its
whole body is given up, the next one has twice the patience, as far as a body of its size could need.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from gateway.telemetry.background import STOOD_STILL_S

T = TypeVar("T")

# No link is thought to be slower than this.
SLOWEST_BYTES_PER_S = 16 * 1024
_MAX_FACTOR = 16
# A smaller body says nothing of the link.
_TELLING_BYTES = 64 * 1024


class Patience:
    """How long nothing may move.

    Args:
        least_s: for a body of any size.

    Attributes:
        factor: by which it has grown.
    """

    def __init__(self, least_s: float) -> None:
        self.least_s = least_s
        self.factor = 1
        # Of the largest body that was given up.
        self._size = 0

    def for_body(self, size: int) -> float:
        """Seconds, for a call that sends so many bytes."""
        return min(self.least_s * self.factor, max(self.least_s, size / SLOWEST_BYTES_PER_S))

    def ran_out(self, size: int, factor: int) -> None:
        """A call was given up though its body was read to the end.

        Args:
            size: of the body.
            factor: that there was when it began: of several that run out together only the first makes it larger.
        """
        if factor == self.factor:
            self.factor = min(2 * self.factor, _MAX_FACTOR)
        self._size = max(self._size, size)

    def was_enough(self, size: int, seconds: float) -> None:
        """A call that sent so many bytes was answered after so long; at that speed the others would have been in time, too."""
        if size >= _TELLING_BYTES and seconds * self._size <= self.least_s * size:
            self.factor, self._size = 1, 0


async def unless_silent(call: Coroutine[Any, Any, T], position: Callable[[], int], patience_s: Callable[[int], float]) -> T:
    """Give the answer of a call that sends a body.

    The HTTP client's own timeout begins when the body is sent: it bounds neither the wait for `100 Continue` nor a peer that
    takes no more bytes, and either may last for ever.

    Args:
        call: ends by itself once it has sent the body.
        position: how far the body was read.
        patience_s: by the position: given up if that has not moved for so long.

    Raises:
        TimeoutError: it was given up, and cancelled. What was sent may have arrived.
    """
    running = asyncio.ensure_future(call)
    before = -1
    try:
        while True:
            patience = patience_s(max(0, before))
            due = time.monotonic() + patience
            if (await asyncio.wait({running}, timeout=patience))[0]:
                break
            if time.monotonic() - due > STOOD_STILL_S:
                # While the machine, or this process, stood still nobody could have read an answer.
                continue
            if (now := position()) == before:
                raise TimeoutError(f"nothing was taken or answered for {patience_s(now):g} seconds or more")
            before = now
        return running.result()
    finally:
        running.cancel()
        await asyncio.wait({running})
        # Its error knows this frame: kept here, the two would wait for the collector of cycles, with all that was to be sent.
        del running
