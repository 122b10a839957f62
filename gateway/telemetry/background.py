"""Tasks that run until they are cancelled and never should end by themselves; timers that ran out while nothing ran."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.telemetry.log import Log

# A timer that is so late ran out while the machine, or this process, stood still: what had come by then is looked at first.
STOOD_STILL_S = 1.0


def watched(
    run: Coroutine[Any, Any, None], log: Log, where: str, on_defect: Callable[[], object] | None = None
) -> asyncio.Task[None]:
    """Begin a task whose error is logged: the process must not go on as if all were well.

    Args:
        run: the task.
        log: where it is logged.
        where: what the task is part of.
        on_defect: called after it was logged.
    """

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("defect", where=where, reason=repr(error))
            if on_defect is not None:
                on_defect()

    task = asyncio.create_task(run)
    task.add_done_callback(ended)
    return task


def from_any_thread(loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
    """Call a listener in the thread of an event loop."""
    try:
        loop.call_soon_threadsafe(wake)
    except RuntimeError:
        # The loop has ended: the next start finds what was committed.
        return
