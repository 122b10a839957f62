"""What a disk that grants nothing keeps from moving, moves with the room of the ballast; and nothing is received meanwhile."""

from __future__ import annotations

import asyncio
import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.admission.disk_room import DiskRoom
from gateway.core import disk
from gateway.core.errors import SpoolFull
from gateway.spool import ballast
from gateway.spool.ballast import BALLAST
from gateway.spool.recovery import recover
from gateway.stores.local import LocalStore
from testkit.spool import SPECIMEN, USAGE, Bench, batch_and_deliver, open_bench, stored_lines, tree, until

MIB = 1 << 20
FULL = [errno.ENOSPC, errno.EDQUOT]
# Of what moves things without writing a byte of them.
MOVES = ("place", "replace", "make_directory", "create")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool with its ballast."""
    with open_bench(tmp_path) as made:
        assert made.spool.ballast.lay()
        yield made


def path_of(bench: Bench) -> Path:
    """Where the ballast is."""
    return bench.spool.root / BALLAST


def granted_by_ballast(patch: pytest.MonkeyPatch, bench: Bench, code: int = errno.EDQUOT) -> None:
    """Have nothing be granted as long as the ballast is there: no new name, no move, no byte."""

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if path_of(bench).exists():
                raise OSError(code, "nothing is granted")
            return real(*arguments)

        return call

    for name in (*MOVES, "write_file", "write_all"):
        patch.setattr(disk, name, failing(getattr(disk, name)))


def test_it_takes_the_room_that_it_keeps(bench: Bench) -> None:
    """It is as large as such a disk can spare, and no file system makes it smaller."""
    before = path_of(bench).stat()
    assert before.st_size == 4 * MIB == before.st_blocks * 512
    assert len(set(path_of(bench).read_bytes()[:4096])) > 200
    assert bench.spool.ballast.lay()
    assert path_of(bench).stat().st_ino == before.st_ino, "it is laid once"
    assert tree(bench.spool.root) == {}


@pytest.mark.parametrize(("total", "size"), [(60 * MIB, 0), (64 * MIB, 256 << 10), (512 * MIB, 2 * MIB), (1 << 40, 4 * MIB)])
def test_a_small_disk_spares_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, total: int, size: int) -> None:
    """A part of the disk; and none where that would be too little, which holds up nothing."""
    monkeypatch.setattr(disk, "file_system", lambda _: disk.FileSystem(total, total_bytes=total))
    with open_bench(tmp_path) as bench:
        assert bench.spool.ballast.lay()
        assert (path_of(bench).stat().st_size if size else 0) == size
        assert path_of(bench).exists() == bool(size)
        assert not bench.spool.ballast.is_given_up()


@pytest.mark.parametrize("code", FULL)
def test_a_step_is_taken_once_more(bench: Bench, code: int) -> None:
    """The room that it kept is given to the step that found none, once."""
    steps = []

    def step() -> str:
        steps.append(path_of(bench).exists())
        if len(steps) % 2:
            raise OSError(code, "no room")
        return "done"

    assert bench.spool.ballast.take(step) == "done"
    assert steps == [True, False]
    with pytest.raises(OSError, match="no room"):
        bench.spool.ballast.take(step)
    assert steps == [True, False, False], "there is nothing to give any more"
    assert [line["event"] for line in bench.told("ballast given up")] == ["ballast given up"]


def test_a_removal_that_is_refused_is_no_error_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step has failed with the error that matters, and is tried again later."""
    monkeypatch.setattr(disk, "remove", lambda _: _raise(errno.EDQUOT))
    assert not bench.spool.ballast.give_up(OSError(errno.EDQUOT, "no room"))
    assert path_of(bench).stat().st_size == 0, "what it held is given up all the same"


def test_another_fault_costs_nothing(bench: Bench) -> None:
    """A disk that fails for another reason has no use for room."""
    with pytest.raises(OSError, match="Input"):
        bench.spool.ballast.take(lambda: _raise(errno.EIO))
    assert path_of(bench).exists()


def test_nothing_is_received_while_it_is_given_up(bench: Bench) -> None:
    """What came then would take the room of what waits: at the door, and in the middle of a body."""
    seconds = [0.0]
    room = DiskRoom(bench.spool, 0, 0, monotonic=lambda: seconds[0])
    room.check(1)
    room.charge(1, 0)
    assert bench.spool.ballast.give_up(OSError(errno.EDQUOT, "no room"))
    seconds[0] += 1
    with pytest.raises(SpoolFull, match="kept for delivery"):
        room.check(1)
    with pytest.raises(SpoolFull, match="kept for delivery"):
        room.charge(1, 0)
    assert bench.spool.ballast.lay()
    seconds[0] += 1
    room.check(1)
    room.charge(1, 0)


@pytest.mark.parametrize("code", FULL)
async def test_it_is_laid_down_again_when_there_is_room(bench: Bench, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As long as there is none it is tried again, and what was written of it is removed each time."""
    monkeypatch.setattr(ballast, "LAY_PAUSE_S", 0.01)
    monkeypatch.setattr(ballast, "LAY_PAUSE_MAX_S", 0.01)
    monkeypatch.setattr(ballast, "QUIET_S", 0.0)
    tries: list[Path] = []
    write = disk.write_chunks

    def full_at_first(path: Path, chunks: Any) -> None:
        tries.append(path)
        path.write_bytes(next(iter(chunks)))
        if len(tries) < 4:
            raise OSError(code, "no room")
        path.unlink()
        write(path, chunks)

    bench.spool.ballast.give_up(OSError(code, "no room"))
    monkeypatch.setattr(disk, "write_chunks", full_at_first)
    keeping = asyncio.create_task(bench.spool.ballast.keep())
    await until(lambda: path_of(bench).exists())
    await until(lambda: not list(bench.spool.directories.tmp.iterdir()))
    await asyncio.sleep(0.1)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert len(tries) == 4
    assert [line["event"] for line in bench.told() if "ballast" in line["event"]] == ["ballast given up", "ballast laid down"]


async def test_it_is_not_laid_down_while_its_room_is_asked_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what waits for its next attempt would find the room taken once more."""
    monkeypatch.setattr(ballast, "LAY_PAUSE_S", 0.01)
    monkeypatch.setattr(ballast, "LAY_PAUSE_MAX_S", 0.01)
    monkeypatch.setattr(ballast, "QUIET_S", 0.5)
    full = OSError(errno.ENOSPC, "no room")
    keeping = asyncio.create_task(bench.spool.ballast.keep())
    bench.spool.ballast.give_up(full)
    for _ in range(8):
        await asyncio.sleep(0.1)
        assert not bench.spool.ballast.give_up(full), "it was laid down meanwhile"
    await until(lambda: path_of(bench).exists())
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_it_is_not_laid_down_elsewhere(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that has taken the place of this one gets none."""
    monkeypatch.setattr(ballast, "LAY_PAUSE_S", 0.01)
    bench.spool.ownership.know([bench.spool.root])
    bench.spool.root.rename(tmp_path / "away")
    (bench.spool.root / "tmp").mkdir(parents=True)
    keeping = asyncio.create_task(bench.spool.ballast.keep())
    await asyncio.sleep(0.2)
    keeping.cancel()
    await asyncio.wait([keeping])
    assert [path.name for path in bench.spool.root.rglob("*")] == ["tmp"]


def test_another_fault_of_laying_is_logged(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that cannot be written to keeps no draft, and no start from its work."""
    path_of(bench).unlink()
    monkeypatch.setattr(disk, "write_chunks", lambda *_: _raise(errno.EIO))
    assert not bench.spool.ballast.lay()
    assert list(bench.spool.directories.tmp.iterdir()) == []
    assert [line["reason"] for line in bench.told("ballast given up")] == ["[Errno 5] Input/output error"]


def test_a_limit_of_the_process_makes_it_smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file may be as large as the disk can spare, one that may be is kept."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1_000_000, 1_000_000))
    with open_bench(tmp_path) as bench:
        assert bench.spool.ballast.lay()
        assert path_of(bench).stat().st_size == 768 << 10


def test_a_start_on_a_disk_that_grants_nothing(tmp_path: Path) -> None:
    """What a killed gateway left is put in order, and counted once, though the first try had got half through."""
    with open_bench(tmp_path) as bench:
        bench.spool.ballast.lay()
        for number in range(3):
            bench.report(b"%d" % number)
        bench.file(b"a file")
        (
            bench.spool.directories.of(USAGE) / f"{bench.spool.timestamps.next()}.{bench.spool.timestamps.next()}.9.jsonl.open"
        ).write_bytes(b'"torn"\n{"to')
    with open_bench(tmp_path, recovered=False) as bench, pytest.MonkeyPatch.context() as patch:
        granted_by_ballast(patch, bench)
        with pytest.raises(OSError, match="nothing is granted"):
            recover(bench.spool)
        bench.spool.ballast.take(lambda: recover(bench.spool))
        assert not path_of(bench).exists()
        assert bench.spool.accounting.waiting[USAGE.name].files == bench.spool.accounting.claimable[USAGE.name].files == 4
        assert bench.spool.accounting.waiting[SPECIMEN.name].files == 1


def test_all_that_waits_leaves(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that is not granted keeps nothing for ever."""
    lines = [b"%d" % number for number in range(3)]
    for line in lines:
        bench.report(line)
    granted_by_ballast(monkeypatch, bench)
    with pytest.raises(OSError, match="nothing is granted"):
        batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects"))
    bench.spool.ballast.take(lambda: batch_and_deliver(bench.spool, LocalStore(tmp_path / "objects")))
    assert stored_lines(tmp_path / "objects") == lines
    assert tree(bench.spool.root) == {}


def _raise(code: int) -> None:
    raise OSError(code, "Input/output error")
