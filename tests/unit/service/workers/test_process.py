"""A worker process is waited for as long as it is there, and not for ever."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from gateway.service.workers import process
from testkit.deadlines import since
from testkit.spool import USAGE, until
from testkit.workers import on_uvloop, running


@on_uvloop
async def test_a_cut_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a worker does nothing, a cut gives up on it, and what the other has received can be claimed."""
    monkeypatch.setattr(process, "CUT_PATIENCE_S", 0.5)
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        os.kill(bench.pid(1), signal.SIGSTOP)
        begun = time.monotonic()
        await bench.workers.cut(USAGE)
        # Half of it: the timers of the loop count from a clock that may be some milliseconds behind.
        assert time.monotonic() - begun >= 0.25
        assert bench.spool.accounting.claimable["usage"].files == 1
        os.kill(bench.pid(1), signal.SIGCONT)
        await until(lambda: bench.spool.accounting.claimable["usage"].files == 2)


@on_uvloop
async def test_a_cut_does_not_wait_for_the_dead(tmp_path: Path) -> None:
    """A worker that dies while it is waited for, or before, holds up no cut."""
    async with running(tmp_path) as bench:
        os.kill(bench.pid(1), signal.SIGSTOP)
        cutting = asyncio.create_task(bench.workers.cut(USAGE))
        await asyncio.sleep(0)
        await bench.dies(1, "worker died")
        begun = time.monotonic()
        await cutting
        assert since(begun) < process.CUT_PATIENCE_S / 2


@on_uvloop
async def test_a_cut_of_one_whose_channel_has_ended(tmp_path: Path) -> None:
    """Between the end of its channel and the end of its process nothing can be told to a worker, and that is no error."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        worker = bench.workers._workers[0]
        worker._writer.transport.abort()
        await asyncio.sleep(0)
        await bench.workers.cut(USAGE)
        await until(lambda: len(bench.told("worker started")) == 3)
        assert bench.spool.accounting.claimable["usage"].files == 2
