"""A `cache_dir` is one gateway's alone, also where its lock is not seen, and stays the directory that it was."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from gateway.core import disk
from gateway.core.errors import StartError
from gateway.spool import owner
from gateway.spool.owner import RECORD, Ownership, Record
from gateway.telemetry.log import Log
from testkit.deadlines import since
from testkit.spool import WAIT_S

ELSEWHERE = Record("ab" * 16, "web-2", 4711, "another boot", "pid:[1]", 5, "2026-11-21T13:59:00Z")


def put(root: Path, record: Record) -> None:
    """Write a record as another gateway does."""
    disk.note(root / RECORD, msgspec.json.encode(record).ljust(511) + b"\n")


def there(root: Path) -> Record | None:
    """The record that stands there."""
    try:
        return owner._read(root / RECORD)
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def held(root: Path, *, lock: str = ".lock") -> Iterator[Ownership]:
    """A directory that is held; with a lock of another name it is one that another gateway does not see."""
    made = Ownership(root)
    taken = disk.Lock(root / lock, made.owner)
    try:
        made.take(taken)
        yield made
    finally:
        made.give_up()
        taken.release()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "BEAT_S", 0.05)
    monkeypatch.setattr(owner, "WATCH_S", 0.5)
    monkeypatch.setattr(owner, "WATCH_SHARED_S", 0.5)


def detail(mine: Ownership) -> str:
    """What a look finds, as the log has it; clients read less."""
    mine.look()
    return mine._detail


def until_said(root: Path, owner: str, beat: int = 0) -> None:
    """Wait for a record of this owner with a higher beat."""
    ends = time.monotonic() + WAIT_S
    while (found := there(root)) is None or found.id != owner or found.beat <= beat:
        assert time.monotonic() < ends
        time.sleep(0.01)


# --- the record --------------------------------------------------------------------------------------------------


def test_a_record_is_written_again_and_again(tmp_path: Path) -> None:
    """It names its writer, and is gone when that has ended."""
    with held(tmp_path) as mine:
        found = there(tmp_path)
        assert found is not None
        assert (found.id, found.pid) == (mine.owner, os.getpid())
        until_said(tmp_path, mine.owner, found.beat)
        (tmp_path / RECORD).unlink()
        until_said(tmp_path, mine.owner)
    assert not (tmp_path / RECORD).exists()


def test_a_directory_whose_owner_lives_elsewhere_is_refused(tmp_path: Path) -> None:
    """Though its lock is to be had: the record changes, so somebody writes it; the error names where that is."""
    ends = threading.Event()

    def beat() -> None:
        for number in range(1000):
            put(tmp_path, replace(ELSEWHERE, beat=number))
            if ends.wait(0.05):
                return

    put(tmp_path, ELSEWHERE)
    other = threading.Thread(target=beat)
    other.start()
    try:
        with pytest.raises(StartError, match="in use by another gateway, the one on web-2 with pid 4711"), held(tmp_path):
            pass
    finally:
        ends.set()
        other.join()
    found = there(tmp_path)
    assert found is not None
    assert found.id == ELSEWHERE.id


def test_a_record_that_stands_still_is_of_a_dead_one(tmp_path: Path) -> None:
    """Of another machine nothing else can be known, so it is watched for a while."""
    put(tmp_path, ELSEWHERE)
    begun = time.monotonic()
    with held(tmp_path) as mine:
        assert time.monotonic() - begun >= owner.WATCH_S
        until_said(tmp_path, mine.owner)


def test_an_owner_that_gives_up_meanwhile_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is removed while it is watched: the start goes on at once."""
    monkeypatch.setattr(owner, "WATCH_S", WAIT_S)
    put(tmp_path, ELSEWHERE)
    removal = threading.Timer(0.1, (tmp_path / RECORD).unlink)
    removal.start()
    begun = time.monotonic()
    with held(tmp_path):
        assert since(begun) < WAIT_S / 2
    removal.join()


def test_a_dead_process_of_this_machine_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill the next start does not take longer."""
    monkeypatch.setattr(owner, "WATCH_S", WAIT_S)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours = owner._ours()
    put(tmp_path, Record("cd" * 16, ours.host, ended.pid, ours.boot, ours.namespace, 3, ""))
    begun = time.monotonic()
    with held(tmp_path):
        assert since(begun) < WAIT_S / 2


@pytest.mark.parametrize("text", [b"", b"{", b"\xff" * 600, b'{"id":1}', b'{"id":"a","host":"b","pid":"c"}', b"null"])
def test_a_record_that_says_nothing_is_none(tmp_path: Path, text: bytes) -> None:
    """A torn or foreign file of this name keeps no gateway from its start, and is written over."""
    (tmp_path / RECORD).write_bytes(text)
    with held(tmp_path) as mine:
        until_said(tmp_path, mine.owner)


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_what_is_no_file_is_no_record(tmp_path: Path, kind: str) -> None:
    """Nothing is waited for and nothing written elsewhere; the lock alone has to do."""
    path = tmp_path / RECORD
    outside = tmp_path / "outside"
    outside.write_bytes(b"x")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(outside)
    with held(tmp_path) as mine:
        assert mine.look() is None
    assert outside.read_bytes() == b"x"


def test_a_full_disk_keeps_nobody_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits has to be delivered; the lock is held all the same."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk, "note", full)
    with held(tmp_path) as mine:
        assert mine.look() is None


# --- what changes while it runs ----------------------------------------------------------------------------------


def test_a_later_start_is_found(tmp_path: Path) -> None:
    """Its id stands in the file of the lock: the gateway of before stops for good, and leaves the other's record alone."""
    with held(tmp_path) as mine:
        (tmp_path / ".lock").write_text(f"4711 {ELSEWHERE.id}\n")
        assert "taken by another gateway, the one with pid 4711" in detail(mine)
        mine._end_thread()
        put(tmp_path, ELSEWHERE)
        fault = mine.look()
        (tmp_path / ".lock").write_text(f"{os.getpid()} {mine.owner}\n")
        assert mine.look() == fault
        with pytest.raises(OSError, match="another gateway"):
            mine.check()
    assert there(tmp_path) == ELSEWHERE


def test_an_earlier_start_is_no_other_owner(tmp_path: Path) -> None:
    """Until it finds that it has lost the directory it writes its record now and then: of two only one may stop."""
    with held(tmp_path) as mine:
        put(tmp_path, ELSEWHERE)
        assert mine.look() is None
        until_said(tmp_path, mine.owner)


@pytest.mark.parametrize("said", ["", "4711"])
def test_without_its_id_in_the_lock_the_record_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """As on a disk that was full at the start: whose record stands there has it, and that is named."""
    monkeypatch.setattr(disk.Lock, "say", lambda _: None)
    (tmp_path / ".lock").write_text(said)
    with held(tmp_path) as mine:
        until_said(tmp_path, mine.owner)
        mine._end_thread()
        assert mine.look() is None
        put(tmp_path, ELSEWHERE)
        assert "taken by another gateway, the one on web-2 with pid 4711" in detail(mine)


def test_of_two_that_start_together_the_later_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks may be hidden each looks once more a moment later, before it does anything."""
    monkeypatch.setattr(owner, "_may_hide_locks", lambda _: True)

    def other_starts(_: float) -> None:
        (tmp_path / ".lock").write_text(f"4711 {ELSEWHERE.id}\n")

    with monkeypatch.context() as patch:
        patch.setattr(owner, "_pause", other_starts)
        with pytest.raises(StartError, match="has just started, the one with pid 4711"), held(tmp_path):
            pass


def test_a_directory_in_the_place_of_another_is_found(tmp_path: Path) -> None:
    """Moved and replaced it is another one, also where it looks alike; moved back it is the old one, and nothing was written."""
    root = tmp_path / "spool"
    (root / "usage").mkdir(parents=True)
    with held(root) as mine:
        mine.know([root, root / "usage"])
        asked: list[int] = []

        log = Log("debug", "json", os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)).start()
        mine.watch(log, lambda: asked.append(1))
        assert mine.look() is None
        root.rename(tmp_path / "away")
        assert "is not the directory it was started on" in (mine.look() or "")
        (root / "usage").mkdir(parents=True)
        assert "is not the directory it was started on" in (mine.look() or "")
        assert not mine.is_there(root / "usage")
        time.sleep(0.2)
        assert not (root / RECORD).exists()
        (root / "usage").rmdir()
        root.rmdir()
        (tmp_path / "away").rename(root)
        assert mine.look() is None
        assert mine.is_there(root / "usage")
        time.sleep(0.5)
    assert len(asked) == 1
    log.close()
    said = (tmp_path / "log").read_text()
    assert said.count("cache_dir lost") == 1
    assert said.count("cache_dir found again") == 1


def test_a_lock_that_was_removed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleaner of old files takes it: another program that comes must meet a lock all the same."""
    monkeypatch.setattr(disk, "_ORPHANS_S", 0.05)
    with held(tmp_path) as mine:
        (tmp_path / ".lock").unlink()
        assert mine.look() is None
        with pytest.raises(StartError, match="in use"):
            disk.Lock(tmp_path / ".lock")


def test_a_lock_that_another_took_is_found(tmp_path: Path) -> None:
    """Removed, and taken before it was made again."""
    with held(tmp_path) as mine:
        (tmp_path / ".lock").unlink()
        other = disk.Lock(tmp_path / ".lock", "other")
        other.say()
        # Else both may have been made at the same moment, as the clock of a file system counts.
        os.utime(tmp_path / ".lock", ns=(1, 1))
        fault = mine.look()
        assert "taken by another gateway" in (fault or "")
        other.release()
        assert mine.look() == fault


def test_a_worker_only_looks(tmp_path: Path) -> None:
    """It knows the owner from the process that has started it, and neither writes nor removes the record."""
    with held(tmp_path) as mine:
        until_said(tmp_path, mine.owner)
        worker = Ownership(tmp_path, mine.owner)
        worker.know([tmp_path])
        assert worker.look() is None
        worker.give_up()
        assert there(tmp_path) is not None
        worker = Ownership(tmp_path, mine.owner)
        (tmp_path / ".lock").write_text(f"4711 {ELSEWHERE.id}\n")
        assert "pid 4711" in detail(worker)


def test_clients_read_nothing_of_the_machine(tmp_path: Path) -> None:
    """Neither paths nor hosts; the log has them."""
    with held(tmp_path) as mine:
        (tmp_path / ".lock").write_text(f"4711 {ELSEWHERE.id}\n")
        assert mine.look() == "cache_dir was taken by another gateway"
        assert str(tmp_path) in detail(mine)


def test_a_directory_that_a_cleaner_removes_is_made_again(tmp_path: Path) -> None:
    """An empty one is nothing that was lost; one that was moved is."""
    inner, other = tmp_path / "usage", tmp_path / "error"
    for directory in (inner, other):
        directory.mkdir()
    with held(tmp_path) as mine:
        mine.know([inner, other])
        inner.rmdir()
        assert mine.look() is None
        assert inner.is_dir()
        assert mine.is_there(inner)
        inner.rmdir()
        # A claim, or another process of this gateway, was quicker.
        inner.mkdir()
        assert mine.look() is None
        assert mine.is_there(inner)
        other.rename(tmp_path / "away")
        assert mine.look() == owner.ELSEWHERE
        assert not other.exists()


def test_a_dead_owner_s_record_that_cannot_be_written_over_is_nobody_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill on a disk that is full: what waits there has to be delivered."""
    put(tmp_path, ELSEWHERE)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(disk, "note", full)
    monkeypatch.setattr(disk.Lock, "say", lambda _: False)
    with held(tmp_path) as mine:
        assert mine.look() is None
        worker = Ownership(tmp_path, mine.owner)
        assert worker.look() is None


def test_a_lock_that_cannot_be_asked_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails for a moment is no reason to be lost for good."""
    with held(tmp_path) as mine:

        def fails(*_: object, **__: object) -> os.stat_result:
            raise OSError(errno.ESTALE, "stale")

        with monkeypatch.context() as patch:
            patch.setattr("gateway.core.disk.os.stat", fails)
            assert mine._lock is not None
            assert mine._lock.is_in_place()
        monkeypatch.setattr(disk.Lock, "is_in_place", lambda _: False)
        assert mine.look() is None


def test_a_worker_has_to_find_the_same_directory(tmp_path: Path) -> None:
    """One that is started while the path leads elsewhere must not take that for the directory."""
    root, away = tmp_path / "spool", tmp_path / "away"
    root.mkdir()
    with held(root) as mine:
        identities = mine.identities()
        Ownership(root, mine.owner).know([root], identities)
        root.rename(away)
        root.mkdir()
        with pytest.raises(OSError, match="is not the directory it was started on"):
            Ownership(root, mine.owner).know([root], identities)
        root.rmdir()
        away.rename(root)


def test_an_old_look_is_made_again_before_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the machine was suspended, while another gateway took the directory."""
    with held(tmp_path) as mine:
        mine._end_thread()
        mine.check_if_old()
        assert mine.look() is None
        (tmp_path / ".lock").write_text(f"4711 {ELSEWHERE.id}\n")
        mine.check_if_old()
        monkeypatch.setattr(owner, "OLD_S", -1.0)
        with pytest.raises(OSError, match="taken by another gateway"):
            mine.check_if_old()


@pytest.mark.parametrize("seen", [b"", b"{"])
def test_a_record_that_is_being_written_is_not_given_up(tmp_path: Path, seen: bytes) -> None:
    """A look may find it half there: its owner lives all the same."""
    put(tmp_path, ELSEWHERE)

    def write() -> None:
        (tmp_path / RECORD).write_bytes(seen)
        time.sleep(0.15)
        put(tmp_path, replace(ELSEWHERE, beat=6))

    writing = threading.Timer(0.1, write)
    writing.start()
    with pytest.raises(StartError, match="web-2"), held(tmp_path):
        pass
    writing.join()
