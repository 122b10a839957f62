"""What takes time or runs in a thread, replaced: every step of the model takes no real time and is the same each time.

What would run in a thread runs at once, the writer of a journal when the event loop comes by, and the clock of intervals
moves when the model moves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any

import pytest

from testkit.model.fate import Fate
from testkit.spool import PowerCut


class Monotonic:
    """The clock of intervals, which moves when it is told to; with a step, also at every look."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.step_s = 0.0

    def __call__(self) -> float:
        """Give the time in seconds."""
        self.now_s += self.step_s
        return self.now_s


class _Idle(BaseException):
    """The writer would wait now."""


class Writer:
    """The queue of a journal and the thread at its end: what the thread does is done when the loop comes by."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate
        self._items: deque[object] = deque()
        self._run: Callable[[], None] | None = None
        self._is_alive = True
        self._waits_over = 0

    def put(self, item: object) -> None:
        """Take something; all that is put before the loop comes by is one round."""
        self._items.append(item)
        asyncio.get_running_loop().call_soon(self.turn)

    def get(self, timeout: float | None = None) -> object:
        """Give the next thing, or come to the end of the wait if the model says that so much time has passed."""
        if self._items:
            return self._items.popleft()
        if timeout is not None and self._waits_over:
            self._waits_over -= 1
            raise queue.Empty
        raise _Idle

    def get_nowait(self) -> object:
        """Give the next thing if there is one."""
        if not self._items:
            raise queue.Empty
        return self._items.popleft()

    def thread(self, *, target: Callable[[], None], name: str, daemon: bool) -> Writer:
        """Be the thread."""
        del name, daemon
        self._run = target
        return self

    def start(self) -> None:
        """Nothing is in the queue yet."""

    def is_alive(self) -> bool:
        """Whether it still writes."""
        return self._is_alive

    def join(self) -> None:
        """It has ended when its last cut was answered."""

    def wait_over(self) -> None:
        """Come to the end of the next wait that has one."""
        self._waits_over = 1
        self.turn()

    def turn(self) -> None:
        """Do what the thread would have done by now."""
        assert self._run is not None
        if self._fate.is_dead or not self._is_alive:
            return
        # A process that dies in here says so by its fate.
        with contextlib.suppress(_Idle, PowerCut):
            self._run()
            self._is_alive = False


class AtOnce(Executor):
    """Threads that have done what they are given before they are asked whether they have."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Do it."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except BaseException as error:  # noqa: BLE001 (also the death of the process, as a thread would pass it on)
            future.set_exception(error)
        return future


async def _at_once(function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
    return function(*arguments, **keywords)


def on_one_thread(patch: pytest.MonkeyPatch, fate: Fate) -> list[Writer]:
    """Have everything run on this thread, with the same ids each time; give the list of the writers that come to be."""
    writers: list[Writer] = []

    def new_queue() -> Writer:
        writers.append(Writer(fate))
        return writers[-1]

    patch.setattr("gateway.spool.journal.queue", SimpleNamespace(SimpleQueue=new_queue, Empty=queue.Empty))
    patch.setattr("gateway.spool.journal.threading", SimpleNamespace(Thread=lambda **given: writers[-1].thread(**given)))
    patch.setattr("gateway.batching.batcher.SEAL_PAUSE_S", 0.0)
    patch.setattr(asyncio, "to_thread", _at_once)
    count = itertools.count()
    patch.setattr(os, "urandom", lambda size: hashlib.sha256(b"%d" % next(count)).digest()[:size])
    return writers
