"""Whether there is room is decided from the head of a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.admission.capacity import PROMISED_BYTES, SMALL_BYTES, Bounds, Capacity
from gateway.admission.disk_room import KEPT_INODES, ROOM_LOOK_S
from gateway.core.disk import FileSystem
from gateway.core.errors import GatewayError, Overloaded, SpoolBroken, SpoolFull, Stopping, TooLarge
from gateway.core.streams import Stream
from testkit.spool import SPECIMEN, USAGE, Bench, open_bench

HELD, STREAMED = 1000, 700


class Door:
    """A capacity of a real spool, on a disk whose free space a test decides."""

    def __init__(self, bench: Bench, *, quota: int = 0, reserve: int = 0, pending: int = 1 << 30, free: int = 1 << 40) -> None:
        self.free = free
        self.now_s = 0.0
        self.looks = 0
        self.inodes: int | None = None
        self.is_read_only = False
        self.fault: GatewayError | None = None
        self.capacity = Capacity(
            bench.spool,
            Bounds(quota=quota, reserve=reserve, pending_bytes=pending, held_bytes=HELD, streamed_bytes=STREAMED),
            {USAGE.name: lambda: self.fault},
            look=self._look,
            monotonic=lambda: self.now_s,
        )

    def _look(self) -> FileSystem:
        self.looks += 1
        return FileSystem(self.free, self.inodes, self.is_read_only)

    def later(self) -> None:
        """Let the last look at the disk become old."""
        self.now_s += ROOM_LOOK_S * 2


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Give a real spool."""
    with open_bench(tmp_path) as made:
        yield made


# --- how much ----------------------------------------------------------------------------------------------------


def test_a_length_over_the_limit_is_refused(bench: Bench) -> None:
    """A body whose length is over its stream's limit is refused, one of exactly the limit is not."""
    capacity = Door(bench).capacity
    capacity.reserve(USAGE, USAGE.max_body_bytes).release()
    with pytest.raises(TooLarge, match=str(USAGE.max_body_bytes)):
        capacity.reserve(USAGE, USAGE.max_body_bytes + 1).release()


@pytest.mark.parametrize("length", [None, 0, 1, HELD, HELD + 1, 1 << 20])
def test_memory_is_counted_by_what_is_held(bench: Bench, length: int | None) -> None:
    """A body takes no memory by being let in, then as much as is held of it, and gives back what is written."""
    capacity = Door(bench).capacity
    with capacity.reserve(USAGE, length) as reservation:
        assert capacity.memory.bytes == 0
        reservation.received(500)
        reservation.received(300)
        assert capacity.memory.bytes == 800
        reservation.memory.free(500)
        assert capacity.memory.bytes == 300
        reservation.memory.free(1000)
        assert capacity.memory.bytes == 0
        reservation.received(7)
    assert capacity.memory.bytes == 0


def test_what_is_announced_keeps_nobody_out(bench: Bench) -> None:
    """Clients that announce more than the gateway has room for, and send next to nothing of it, take next to nothing."""
    capacity = Door(bench, pending=2500, free=SPECIMEN.max_body_bytes * 3).capacity
    with ExitStack() as bodies:
        for _ in range(100):
            bodies.enter_context(capacity.reserve(SPECIMEN, SPECIMEN.max_body_bytes)).received(1)
        assert capacity.room.promised_bytes <= 100 * PROMISED_BYTES
        bodies.enter_context(capacity.reserve(USAGE, 600)).received(600)
    assert (capacity.memory.bytes, capacity.room.promised_bytes) == (0, 0)


@pytest.mark.parametrize("length", [0, 1, PROMISED_BYTES - 1, PROMISED_BYTES, 3 * PROMISED_BYTES + 1])
def test_room_is_promised_a_little_ahead(bench: Bench, length: int) -> None:
    """So much of the room that a body still needs is kept for it, and no more of it than it needs."""
    capacity = Door(bench).capacity
    left = length
    with capacity.reserve(SPECIMEN, length) as reservation:
        while True:
            assert capacity.room.promised_bytes == min(left, PROMISED_BYTES)
            if not left:
                break
            reservation.handed_on(PROMISED_BYTES // 2)
            left = max(0, left - PROMISED_BYTES // 2)
    assert capacity.room.promised_bytes == 0


def test_pending_bodies_are_bounded(bench: Bench) -> None:
    """What all the bodies on their way take of memory is bounded, and each gives back what it took."""
    capacity = Door(bench, pending=2500).capacity
    with ExitStack() as bodies:
        for length in (600, 5000, None):
            bodies.enter_context(capacity.reserve(USAGE, length)).received(600 if length == 600 else 700)
        assert capacity.memory.bytes == 2000
        with pytest.raises(Overloaded):
            capacity.reserve(USAGE, None).release()
        late = bodies.enter_context(capacity.reserve(USAGE, 500))
        later = bodies.enter_context(capacity.reserve(USAGE, 500))
        late.received(500)
        with pytest.raises(Overloaded):
            later.received(1)
    assert (capacity.memory.bytes, capacity.room.promised_bytes) == (0, 0)


def test_a_window_is_counted_when_it_is_opened(bench: Bench) -> None:
    """What a decoder takes beside the body counts too, once there is one, and is given back with the rest."""
    capacity = Door(bench, pending=2500).capacity
    with capacity.reserve(USAGE, None) as body, capacity.reserve(USAGE, None) as other:
        body.received(700)
        body.memory.take(1500)
        assert capacity.memory.bytes == 2200
        with pytest.raises(Overloaded):
            other.memory.take(1500)
    assert capacity.memory.bytes == 0


def test_a_single_body_is_always_let_in(bench: Bench) -> None:
    """A bound that is smaller than one body does not keep every body out."""
    capacity = Door(bench, pending=10).capacity
    with capacity.reserve(USAGE, None) as reservation:
        for _ in range(100):
            reservation.received(100)
        with pytest.raises(Overloaded):
            capacity.reserve(USAGE, 1).release()


def test_a_body_that_fails_gives_back_what_it_took(bench: Bench) -> None:
    """An error in the middle of a body frees its memory and its promised bytes, whatever of it was written."""
    capacity = Door(bench).capacity

    def fail() -> None:
        with capacity.reserve(USAGE, 500) as reservation:
            reservation.handed_on(200)
            assert capacity.room.promised_bytes == 300
            reservation.handed_on(9999)
            assert capacity.room.promised_bytes == 0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (capacity.memory.bytes, capacity.room.promised_bytes) == (0, 0)


# --- room --------------------------------------------------------------------------------------------------------


def test_the_quota_is_kept(bench: Bench) -> None:
    """What waits in the spool and what was promised to bodies on their way may not pass the quota together."""
    capacity = Door(bench, quota=1000).capacity
    bench.report(b"x" * 399)
    capacity.reserve(USAGE, 600).release()
    with pytest.raises(SpoolFull, match="quota"):
        capacity.reserve(USAGE, 601).release()
    with capacity.reserve(USAGE, 500), pytest.raises(SpoolFull):
        capacity.reserve(USAGE, 101).release()
    capacity.reserve(USAGE, 600).release()


def test_a_quota_of_nothing_is_none(bench: Bench) -> None:
    """Without a quota only the disk bounds the spool."""
    capacity = Door(bench, quota=0).capacity
    bench.report(b"x" * 5000)
    capacity.reserve(SPECIMEN, 1 << 30).release()


def test_the_reserve_is_kept(bench: Bench) -> None:
    """The reserve is not given to received data, to the byte, and not to data of unknown length either."""
    door = Door(bench, reserve=1000, free=1500)
    door.capacity.reserve(USAGE, 500).release()
    with pytest.raises(SpoolFull):
        door.capacity.reserve(USAGE, 501).release()
    with door.capacity.reserve(USAGE, 500), pytest.raises(SpoolFull):
        door.capacity.reserve(USAGE, 1).release()
    door.free = 1000
    door.later()
    with pytest.raises(SpoolFull):
        door.capacity.reserve(USAGE, None).release()


def test_the_disk_is_not_asked_for_every_request(bench: Bench) -> None:
    """A look at the free space is good for a moment, and no longer."""
    door = Door(bench)
    for _ in range(100):
        door.capacity.reserve(USAGE, 1).release()
    assert door.looks == 1
    door.later()
    door.capacity.reserve(USAGE, 1).release()
    assert door.looks == 2


def test_the_free_space_is_that_of_the_spools_disk(bench: Bench) -> None:
    """Without being told otherwise the capacity asks the disk that holds the spool."""
    bounds = Bounds(quota=0, reserve=1 << 62, pending_bytes=1 << 20, held_bytes=HELD, streamed_bytes=STREAMED)
    with pytest.raises(SpoolFull):
        Capacity(bench.spool, bounds, {}).reserve(USAGE, 1)


# --- the state of the gateway ------------------------------------------------------------------------------------


def test_nobody_enters_while_stopping(bench: Bench) -> None:
    """Once stopping has begun every body is refused, and readiness says why."""
    capacity = Door(bench).capacity
    assert capacity.refusal() == []
    capacity.stopping = True
    with pytest.raises(Stopping):
        capacity.reserve(USAGE, 1).release()
    assert capacity.refusal() == ["stopping"]


def test_nobody_enters_a_directory_that_was_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither reports nor files, and readiness says why, until it is found again."""
    capacity = Door(bench).capacity
    with monkeypatch.context() as patch:
        patch.setattr(bench.spool.ownership, "fault", "it was moved")
        for stream in (USAGE, SPECIMEN):
            with pytest.raises(SpoolBroken, match="it was moved"):
                capacity.reserve(stream, 1).release()
        with pytest.raises(SpoolBroken):
            capacity.reserve_whole(USAGE, 1)
        assert capacity.refusal() == ["it was moved"]
    capacity.reserve(USAGE, 1).release()
    assert capacity.refusal() == []


def test_a_broken_writer_keeps_only_its_own_stream_out(bench: Bench) -> None:
    """While a stream's writer is broken its bodies are refused with the writer's error, and those of others are not."""
    door = Door(bench)
    door.fault = SpoolBroken("the disk did not keep it")
    with pytest.raises(SpoolBroken):
        door.capacity.reserve(USAGE, 1).release()
    door.capacity.reserve(SPECIMEN, 1).release()
    assert door.capacity.refusal() == [f"{USAGE.name}: the disk did not keep it"]
    door.fault = None
    door.capacity.reserve(USAGE, 1).release()


def test_readiness_says_that_there_is_no_room(bench: Bench) -> None:
    """While a small body would be refused for want of room, readiness says so."""
    assert Door(bench, reserve=10, free=10).capacity.refusal() == ["the disk has no room"]
    bench.report(b"1" * 99)
    assert Door(bench, quota=100).capacity.refusal() == ["the spool has reached its quota"]


def test_readiness_counts_memory(bench: Bench) -> None:
    """While a small body would be refused for want of memory, readiness says so, with the figures and the key."""
    capacity = Door(bench, pending=2000).capacity
    with capacity.reserve(USAGE, None) as body:
        body.received(900)
        assert capacity.refusal() == []
        body.received(200)
        (reason,) = capacity.refusal()
        assert "1100 bytes of memory" in reason
        assert "limits.pending_bytes is 2000" in reason
        with pytest.raises(Overloaded):
            capacity.reserve_whole(USAGE, SMALL_BYTES)
    assert capacity.refusal() == []


@pytest.mark.parametrize("stream", [USAGE, SPECIMEN], ids=["usage", "specimen"])
def test_inodes_are_kept_for_delivery(bench: Bench, stream: Stream) -> None:
    """Below what aggregation and delivery need of inodes every body is refused, and readiness says why, with the figures."""
    door = Door(bench)
    door.inodes = KEPT_INODES
    assert door.capacity.refusal() == []
    door.capacity.reserve(stream, 1).release()
    door.inodes = KEPT_INODES - 1
    door.later()
    for reserve in (door.capacity.reserve, door.capacity.reserve_whole):
        with pytest.raises(SpoolFull, match=f"{KEPT_INODES - 1} inodes free, and {KEPT_INODES} are kept"):
            reserve(stream, 1)
    (reason,) = door.capacity.refusal()
    assert "inodes" in reason


def test_a_read_only_file_system_lets_nobody_in(bench: Bench) -> None:
    """A disk that was mounted anew without writing is a reason at once, and not only when a write fails; it is let go of."""
    door = Door(bench)
    door.is_read_only = True
    with pytest.raises(SpoolBroken, match="read-only"):
        door.capacity.reserve(SPECIMEN, 1).release()
    assert len(door.capacity.refusal()) == 1
    door.is_read_only = False
    door.later()
    door.capacity.reserve(SPECIMEN, 1).release()
    assert door.capacity.refusal() == []


def test_what_is_added_to_a_body_finds_room_too(bench: Bench) -> None:
    """Envelopes take memory and room like what was sent, until the report is synced."""
    capacity = Door(bench, quota=2000, pending=1500).capacity
    whole = capacity.reserve_whole(USAGE, 400)
    with pytest.raises(Overloaded):
        capacity.reserve_more(1101)
    more = capacity.reserve_more(1000)
    with pytest.raises(SpoolFull):
        capacity.room.check(601)
    more.release()
    whole.release()
    assert (capacity.memory.bytes, capacity.room.promised_bytes) == (0, 0)


def test_readiness_says_that_the_disk_cannot_be_asked(bench: Bench) -> None:
    """A disk that does not answer is a reason and not a crash, and lets nobody in."""
    capacity = Door(bench).capacity

    def gone() -> FileSystem:
        raise OSError("no such device")

    capacity.room._look = gone
    (reason,) = capacity.refusal()
    assert "no such device" in reason
    with pytest.raises(SpoolBroken):
        capacity.reserve(USAGE, 1).release()


@pytest.mark.parametrize("is_whole", [True, False], ids=["whole", "in pieces"])
def test_a_reservation_is_released_once(bench: Bench, is_whole: bool) -> None:
    """What is released twice frees no room that others have reserved."""
    capacity = Door(bench).capacity
    other = capacity.reserve_whole(USAGE, 100)
    twice = capacity.reserve_whole(USAGE, 400) if is_whole else capacity.reserve(USAGE, 400)
    twice.release()
    twice.release()
    assert (capacity.memory.bytes, capacity.room.promised_bytes) == (100, 100)
    other.release()
    assert (capacity.memory.bytes, capacity.room.promised_bytes) == (0, 0)
