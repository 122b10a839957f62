"""What is written is charged against quota and reserve, piece by piece, whatever was sent of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.admission.disk_room import KEPT_INODES, ROOM_LOOK_BYTES, ROOM_LOOK_S, DiskRoom
from gateway.core.disk import FileSystem
from gateway.core.errors import SpoolBroken, SpoolFull
from testkit.spool import Bench, open_bench

PIECE = 256 << 10


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


class Disk:
    """A disk whose free space a test decides; what lands on it takes of that."""

    def __init__(self, bench: Bench, *, free: int = 1 << 40, quota: int = 0, reserve: int = 0) -> None:
        self.seen = FileSystem(free)
        self.now_s = 0.0
        self.looks = 0
        self.room = DiskRoom(bench.spool, quota, reserve, look=self._look, monotonic=lambda: self.now_s)

    def _look(self) -> FileSystem:
        self.looks += 1
        return self.seen

    def write(self, size: int, own_promise: int = 0) -> None:
        """Charge and write so much."""
        self.room.charge(size, own_promise)
        self.seen = FileSystem(self.seen.free_bytes - size)
        self.room.landed(size)

    def write_until_refused(self) -> int:
        """Write piece after piece, and give how many bytes were let through."""
        for pieces in itertools.count():
            try:
                self.write(PIECE)
            except SpoolFull:
                return pieces * PIECE
        raise AssertionError


def test_the_quota_ends_a_body_within_one_piece(bench: Bench) -> None:
    """The write that would pass the quota is refused, to the byte, and is not counted."""
    disk = Disk(bench, quota=1000)
    disk.write(999)
    with pytest.raises(SpoolFull, match="quota"):
        disk.write(2)
    assert bench.spool.accounting.used_bytes() == 999
    disk.write(1)
    assert bench.spool.accounting.used_bytes() == 1000


def test_the_reserve_is_never_written_into(bench: Bench) -> None:
    """However fast bodies write between two looks at the disk, the write that would take of the reserve is refused."""
    disk = Disk(bench, free=(20 << 20) + 1000, reserve=1000)
    assert disk.write_until_refused() == 20 << 20
    assert disk.looks > 1


def test_the_disk_is_asked_again_as_it_is_written(bench: Bench) -> None:
    """What others take of the disk is seen after so many bytes at the latest, though no time has passed."""
    disk = Disk(bench)
    disk.write(PIECE)
    disk.seen = FileSystem(PIECE)
    assert disk.write_until_refused() <= ROOM_LOOK_BYTES + PIECE


def test_a_look_does_not_hide_what_is_being_written(bench: Bench) -> None:
    """Bytes that were charged and may not be on the disk yet when it is asked still count."""
    disk = Disk(bench, free=1000)
    disk.room.charge(600, 0)
    disk.now_s += 2 * ROOM_LOOK_S
    with pytest.raises(SpoolFull):
        disk.room.charge(500, 0)
    disk.room.charge(400, 0)


def test_what_others_are_promised_is_kept(bench: Bench) -> None:
    """A body that decodes to much does not take the room of one that was let in, and may use its own promise."""
    disk = Disk(bench, quota=1000, free=2000, reserve=1000)
    disk.room.promised_bytes = 300
    with pytest.raises(SpoolFull):
        disk.write(701)
    disk.write(700)
    with pytest.raises(SpoolFull):
        disk.write(201, own_promise=200)
    disk.write(200, own_promise=200)


def test_bodies_never_pass_a_bound_together(bench: Bench) -> None:
    """Of bodies that write at the same time just as many bytes are let through as there is room for."""
    disk = Disk(bench, quota=1000 * 100)
    room = disk.room

    def body(_: int) -> int:
        let_in = 0
        for _ in range(500):
            try:
                room.charge(100, 0)
            except SpoolFull:
                continue
            let_in += 100
            room.landed(100)
        return let_in

    with ThreadPoolExecutor(4) as bodies:
        written = sum(bodies.map(body, range(4)))
    assert written == 1000 * 100
    assert bench.spool.accounting.used_bytes() == written


def test_what_a_body_writes_is_seen_at_the_door(bench: Bench) -> None:
    """A look that a writing body makes the disk due for is made at the door too."""
    disk = Disk(bench, free=100 << 20)
    disk.room.check(1)
    for _ in range(40):
        disk.write(PIECE)
    disk.seen = FileSystem(10)
    disk.now_s += ROOM_LOOK_S / 2
    for _ in range(ROOM_LOOK_BYTES // PIECE + 2):
        try:
            disk.write(PIECE)
        except SpoolFull:
            break
    with pytest.raises(SpoolFull):
        disk.room.check(11)


def test_files_that_were_let_in_count_until_the_next_look(bench: Bench) -> None:
    """Many files at once do not take the inodes of the delivery between two looks."""
    disk = Disk(bench)
    disk.seen = FileSystem(1 << 40, KEPT_INODES + 10)
    for _ in range(6):
        disk.room.check(1, files=2)
    with pytest.raises(SpoolFull, match="inodes"):
        disk.room.check(1, files=2)
    disk.now_s += 2 * ROOM_LOOK_S
    disk.room.check(1, files=2)


def test_a_disk_that_cannot_be_asked_is_no_room(bench: Bench) -> None:
    """Neither the door nor a write goes on without an answer, and what was charged is not counted."""

    def gone() -> FileSystem:
        raise OSError(5, "Input/output error")

    room = DiskRoom(bench.spool, 0, 0, look=gone)
    with pytest.raises(SpoolBroken, match="Input/output error"):
        room.check(1)
    with pytest.raises(SpoolBroken):
        room.charge(10, 0)
    assert bench.spool.accounting.used_bytes() == 0
    assert list(bench.spool.accounting.written.mine) == [0, 0]


def test_a_read_only_disk_ends_a_body(bench: Bench) -> None:
    """A body that is being written when the disk is made read-only is told so."""
    disk = Disk(bench)
    disk.seen = FileSystem(1 << 40, None, is_read_only=True)
    with pytest.raises(SpoolBroken, match="read-only"):
        disk.room.charge(1, 0)
