"""Threads that are all there from the start."""

from __future__ import annotations

import threading

import pytest

from gateway.core.errors import StartError
from gateway.core.threads import started_pool


def test_all_threads_are_there_from_the_start() -> None:
    """No thread is started when work comes."""
    before = threading.active_count()
    with started_pool(3, "some") as pool:
        assert threading.active_count() == before + 3
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading.Thread, "start", _refuse)
            assert pool.submit(lambda: 7).result() == 7


def test_a_system_without_threads_is_a_fault_of_the_start() -> None:
    """Where a thread cannot be started the start ends with what has to be allowed, and not a request with a defect."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        with pytest.raises(StartError, match="TasksMax"):
            started_pool(3, "some")


def _refuse(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")
