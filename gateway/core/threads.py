"""Pools of threads that are all there from the start, so that none has to be started when it is needed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from gateway.core.errors import StartError

_START_S = 60.0


def start_all(pool: ThreadPoolExecutor, count: int) -> None:
    """Start the threads of a pool for so many; StartError where the system has no room for them.

    A pool starts a thread when it is given work, and where that fails the work may be done all the same, later and unseen.
    """
    # Each thread waits for the others, so that none takes the work of two.
    all_there = threading.Barrier(count)
    try:
        waiting = [pool.submit(all_there.wait, _START_S) for _ in range(count)]
        for each in waiting:
            each.result()
    except RuntimeError as error:
        all_there.abort()
        pool.shutdown(wait=False)
        raise StartError(
            f"{count} threads cannot be started ({error}): allow more of them to this user or service (ulimit -u, TasksMax=)"
        ) from error
