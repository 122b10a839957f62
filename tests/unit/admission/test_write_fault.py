"""A failure to write a body's file shows until a write succeeds again."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.admission.write_fault import TRIAL_BYTES, WriteFault
from gateway.core import disk
from gateway.core.errors import refusal
from testkit.deadlines import until
from testkit.running import running
from testkit.spool import SPECIMEN, Bench, open_bench, soon


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


async def test_a_failure_shows_until_the_disk_is_well(bench: Bench) -> None:
    """Without any body the gateway finds out by itself that the disk keeps files again, and leaves nothing behind."""
    tried, well = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    write_file = disk.write_file

    def failing(path: Path, data: bytes) -> None:
        loop.call_soon_threadsafe(tried.set)
        if not well.is_set():
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        write_file(path, data)

    with ThreadPoolExecutor(1) as executor, pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "write_file", failing)
        fault = WriteFault(bench.spool, executor, bench.log, pause_s=0.001)
        assert fault.current() is None
        fault.failed(SPECIMEN, refusal(OSError(errno.EDQUOT, "x")))
        await soon(tried)
        assert "quota" in str(fault.current())
        well.set()
        async with asyncio.timeout(20):
            while fault.current() is not None:  # noqa: ASYNC110 (nobody is told but who asks)
                await asyncio.sleep(0.001)
        await fault.close()
    assert os.listdir(bench.spool.directories.tmp) == []
    assert [line["stream"] for line in bench.told("spool failed")][:1] == ["specimen"]
    assert len(bench.told("spool recovered")) == 1


async def test_a_body_that_is_written_ends_it_at_once(bench: Bench) -> None:
    """Whichever write succeeds first says that the disk is well."""
    with ThreadPoolExecutor(1) as executor:
        fault = WriteFault(bench.spool, executor, bench.log, pause_s=3600.0)
        fault.failed(SPECIMEN, refusal(OSError(errno.EIO, "x")))
        assert fault.current() is not None
        fault.succeeded()
        assert fault.current() is None
        await fault.close()


@pytest.mark.parametrize(("number", "words"), [(errno.EMFILE, "ulimit -n"), (errno.ENFILE, "fs.file-max")])
def test_descriptors_are_not_blamed_on_the_disk(number: int, words: str) -> None:
    """Where no file can be opened the answer names the limit that was reached."""
    message: Any = str(refusal(OSError(number, os.strerror(number))))
    assert words in message
    assert "disk" not in message


def test_readiness_says_that_files_are_not_kept(tmp_path: Path) -> None:
    """A specimen that the disk refuses is a reason in `/ready`, which goes by itself when the disk takes files again."""
    with running(tmp_path) as gateway:
        (process,) = gateway._processes()
        soft, hard = process.rlimit(psutil.RLIMIT_FSIZE)
        # Less than a trial writes, and more than the log does.
        process.rlimit(psutil.RLIMIT_FSIZE, (TRIAL_BYTES - 1, hard))
        assert gateway.put("/specimen?uri=a", b"x" * 10_000) == 503
        ready = gateway.get("/ready")
        assert ready.status == 503
        assert "ulimit -f" in ready.json()["reasons"][0]
        process.rlimit(psutil.RLIMIT_FSIZE, (soft, hard))
        until(lambda: gateway.get("/ready").status == 200, "the gateway to be ready again")
        assert gateway.put("/specimen?uri=a", b"x" * 10_000) == 204
        assert gateway.events("spool recovered")
