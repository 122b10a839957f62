"""Workers are replaced when they die, waited for when they stop, and never waited for without an end."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from gateway.core.errors import StartError
from gateway.service.workers import process
from gateway.service.workers import supervisor as workers_room
from gateway.service.workers.main import ABANDONED
from gateway.service.workers.supervisor import count_of
from testkit.deadlines import since
from testkit.spool import USAGE, until
from testkit.workers import NO_ANSWER, on_uvloop, running


def test_how_many() -> None:
    """A number is one, and `auto` is the number of cores that the process may use."""
    assert count_of(3) == 3
    assert count_of("auto") == len(os.sched_getaffinity(0))


@on_uvloop
async def test_a_stop_leaves_cut_segments(tmp_path: Path) -> None:
    """After a stop all that was received stands in cut segments, no process is left, and none was told to have died."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        await bench.workers.stop(1.0)
        await bench.workers.close()
        assert (bench.spool.accounting.open["usage"].files, bench.spool.accounting.claimable["usage"].files) == (0, 2)
        assert len(list(bench.spool.directories.of(USAGE).glob("*.jsonl"))) == 2
        assert bench.told("worker died") == []


@on_uvloop
async def test_a_cut_asks_every_worker(tmp_path: Path) -> None:
    """After a cut what every worker has acknowledged can be claimed."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        await bench.workers.cut(USAGE)
        assert bench.spool.accounting.claimable["usage"].files == 2
        assert bench.spool.claim(USAGE, 1 << 30, "host") is not None


@on_uvloop
async def test_one_that_does_not_stop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a stop a worker that does nothing is killed, and what it has acknowledged is put in order with the rest."""
    monkeypatch.setattr(workers_room, "STOP_PATIENCE_S", 0.5)
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        os.kill(bench.pid(1), signal.SIGSTOP)
        await bench.workers.stop(1.0)
        await bench.workers.close()
        await bench.workers.recount()
        assert [line["exit_code"] for line in bench.told("worker died")] == [-signal.SIGKILL]
        assert (bench.spool.accounting.open["usage"].files, bench.spool.accounting.claimable["usage"].files) == (0, 2)


@on_uvloop
async def test_a_dead_worker_is_recovered_and_replaced(tmp_path: Path) -> None:
    """What it has acknowledged can be claimed, the counts are right, and its place is taken by one that receives."""
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        await bench.dies(1, "worker started")
        (recovered,) = bench.told("worker recovered")
        assert recovered["segments_cut"] == 1
        assert (bench.spool.accounting.claimable["usage"].files, bench.spool.accounting.waiting["usage"].files) == (1, 1)
        await bench.put_on_both()


@on_uvloop
async def test_what_cannot_be_counted_now_is_counted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be read after a death does not keep a worker from being replaced."""
    monkeypatch.setattr(workers_room, "RECOUNT_PAUSE_S", 0.001)
    async with running(tmp_path) as bench:
        await bench.put_on_both()
        recount = bench.spool.accounting.recount

        def fails() -> bool:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(bench.spool.accounting, "recount", fails)
        # A change that was begun, and counted, and that did not come to its end.
        bench.spool.accounting._changes.columns[1][0] += 1
        bench.spool.accounting.waiting["usage"].add(5, 500)
        await bench.dies(1, "worker started")
        assert bench.spool.accounting.waiting["usage"].files == 6
        monkeypatch.setattr(bench.spool.accounting, "recount", recount)
        await until(lambda: bench.spool.accounting.waiting["usage"].files == 1)
        assert bench.told("defect") == []


@on_uvloop
async def test_looks_for_a_count_come_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads all names of the spool; under a load that never pauses they must not take the disk from it."""
    monkeypatch.setattr(workers_room, "RECOUNT_PAUSE_S", 0.02)
    async with running(tmp_path) as bench:
        looks: list[float] = []

        def finds_no_moment() -> bool:
            looks.append(time.monotonic())
            return False

        monkeypatch.setattr(bench.spool.accounting, "recount", finds_no_moment)
        bench.spool.accounting._changes.columns[1][0] += 1
        await bench.dies(1, "worker started")
        await until(lambda: len(looks) >= 5)
        pauses = [after - before for before, after in itertools.pairwise(looks)]
        # At the least, whatever the machine is busy with; a timer may be a little early.
        assert all(pause >= 0.9 * 0.02 * 2**number for number, pause in enumerate(pauses, start=1)), pauses


@on_uvloop
async def test_one_that_cannot_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, tried again, leaves no descriptor behind, and does not hold up a stop; the other goes on."""
    monkeypatch.setattr(workers_room, "PAUSE_MAX_S", 0.2)
    async with running(tmp_path) as bench:
        monkeypatch.setattr(process, "_command", lambda: ["/nonexistent/program"])
        await bench.dies(1, "worker not started")
        descriptors = len(os.listdir("/proc/self/fd"))
        await until(lambda: len(bench.told("worker not started")) >= 3)
        assert len(os.listdir("/proc/self/fd")) <= descriptors
        assert bench.defects == []
        begun = time.monotonic()
        await bench.workers.stop(1.0)
        await bench.workers.close()
        assert since(begun) < 5


@on_uvloop
async def test_nobody_waits_for_one_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a worker cannot be started all connections go to the other, and when it can be it receives again."""
    monkeypatch.setattr(workers_room, "PATIENT_S", 0.1)
    monkeypatch.setattr(workers_room, "PAUSE_MAX_S", 0.2)
    async with running(tmp_path) as bench:
        with monkeypatch.context() as patch:
            patch.setattr(process, "_command", lambda: ["/nonexistent/program"])
            await bench.dies(1, "worker not started")
            await until(lambda: len(bench.told("worker not started")) >= 3)
            assert [await bench.put(number) for number in range(30)] == [204] * 30
        await until(lambda: len(bench.told("worker started")) == 3)
        await bench.put_on_both()


@on_uvloop
async def test_when_nobody_is_left_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the last worker cannot be replaced, whoever has started them is told that nobody receives any more."""
    monkeypatch.setattr(workers_room, "PAUSE_MAX_S", 0.2)
    async with running(tmp_path) as bench:
        monkeypatch.setattr(process, "_command", lambda: ["/nonexistent/program"])
        await bench.dies(1, "worker not started")
        assert bench.defects == []
        os.kill(bench.pid(2), signal.SIGKILL)
        await until(lambda: bench.defects != [])


@on_uvloop
async def test_a_start_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends before it accepts requests is an error at the start."""
    monkeypatch.setattr(process, "_command", lambda: ["false"])
    with pytest.raises(StartError, match="worker process did not start"):
        async with running(tmp_path):
            pass


DEFECTIVE = """\
import sys
from gateway.core import disk
from gateway.service.workers import main
def defect(*_):
    raise ZeroDivisionError
disk.write_all = defect
sys.exit(main.main(int(sys.argv[1])))
"""


@on_uvloop
async def test_one_that_cannot_go_on_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose journal has a defect ends by itself, and its place is taken by one that receives."""
    sound = process._command()
    monkeypatch.setattr(process, "_command", lambda: [sys.executable, "-c", DEFECTIVE])
    async with running(tmp_path) as bench:
        monkeypatch.setattr(process, "_command", lambda: sound)
        assert await bench.put(1) == NO_ANSWER
        await until(lambda: len(bench.told("worker started")) == 3)
        (died,) = bench.told("worker died")
        assert died["exit_code"] == ABANDONED
        assert bench.metrics.worker_deaths.labels().total() == 1
        assert bench.defects == []


@on_uvloop
async def test_long_trouble_is_no_trouble_of_theirs(tmp_path: Path) -> None:
    """However long it is what the delivery has to tell, the workers take it and go on."""
    async with running(tmp_path) as bench:
        bench.degraded.append("x" * 200_000)
        while len(await bench.ready()) < 200_000:  # noqa: ASYNC110 (nobody is told)
            await asyncio.sleep(0.01)
        await bench.put_on_both()
        assert bench.told("worker died") == []


@pytest.mark.parametrize("delay_s", [0.0, 0.12, 0.3, 0.5])
@on_uvloop
async def test_a_stop_in_the_middle_of_a_replacement(tmp_path: Path, delay_s: float) -> None:
    """Whenever the stop comes, the new process hears of it, and nothing has to be killed."""
    async with running(tmp_path) as bench:
        await bench.dies(1, "worker recovered")
        await asyncio.sleep(delay_s)
        begun = time.monotonic()
        await bench.workers.stop(1.0)
        await bench.workers.close()
        assert since(begun) < workers_room.STOP_PATIENCE_S / 2
        assert len(bench.told("worker died")) == 1
