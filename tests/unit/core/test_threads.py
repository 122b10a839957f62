"""Threads that are all there from the start."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.core.errors import StartError
from gateway.core.threads import start_all


def test_all_threads_are_there_from_the_start() -> None:
    """No thread is started when work comes."""
    before = threading.active_count()
    with ThreadPoolExecutor(3) as pool:
        start_all(pool, 3)
        assert threading.active_count() == before + 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading.Thread, "start", _refuse)
            assert pool.submit(lambda: 7).result() == 7


def test_a_system_without_threads_is_a_fault_of_the_start() -> None:
    """Where a thread cannot be started the start ends with what has to be allowed, and not a request with a defect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        with pytest.raises(StartError, match="TasksMax"):
            start_all(ThreadPoolExecutor(3), 3)


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
