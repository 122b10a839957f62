"""Memory is counted by what is held, and freed when it is short."""

from __future__ import annotations

import pytest

from gateway.admission.memory import HELD_S, SLOW_BYTES_PER_S, WRITTEN_S, Memory, Share
from gateway.core.errors import Overloaded

MOST = 1000


class Desk:
    """A memory, and bodies in it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.memory = Memory(MOST, lambda: self.now_s)
        self.written: list[str] = []
        self.ended: list[str] = []

    def body(self, name: str, size: int, *, held: bool = True, speed: float | None = None) -> Share:
        """A body that has taken so much and waits for its client; `held` is what can be written."""
        share = Share(self.memory)
        share.watch(lambda: speed)
        share.take(size)
        share.held_since = self.now_s

        def write_early() -> None:
            share.write_early = None
            self.written.append(name)

        if held:
            share.write_early = write_early
        share.end = lambda: self.ended.append(name)
        return share


def test_what_is_held_is_written_when_somebody_finds_no_memory() -> None:
    """The newcomer is refused once, and all that wait for their clients are asked to write what they hold."""
    desk = Desk()
    for name in ("a", "b"):
        desk.body(name, 450)
    assert desk.written == []
    with pytest.raises(Overloaded, match=r"900 bytes of memory.*limits\.pending_bytes is 1000"):
        desk.memory.check(101)
    assert sorted(desk.written) == ["a", "b"]
    assert desk.ended == []


def test_what_was_held_long_is_written_before_memory_is_short() -> None:
    """Beyond half of the memory those that have held something for a while write it, and fresh ones keep it."""
    desk = Desk()
    desk.body("old", 300)
    desk.now_s += HELD_S
    fresh = desk.body("fresh", 100)
    assert desk.written == []
    fresh.take(101)
    assert desk.written == ["old"]


def test_the_slowest_ends_when_nothing_is_left_to_be_written() -> None:
    """Of bodies whose memory cannot be written the slowest ends, when what was written has had its time."""
    desk = Desk()
    desk.body("held", 10)
    for name, speed in (("fast", 1e6), ("slow", 20.0), ("slowest", 3.0), ("new", None)):
        desk.body(name, 245, held=False, speed=speed)
    for _ in range(2):
        with pytest.raises(Overloaded):
            desk.memory.check(100)
    assert (desk.written, desk.ended) == (["held"], [])
    desk.now_s += WRITTEN_S
    with pytest.raises(Overloaded):
        desk.memory.check(100)
    assert desk.ended == ["slowest"]


def test_nobody_ends_who_is_not_slow() -> None:
    """Where many fast bodies have taken the memory it is the newcomer that has to wait."""
    desk = Desk()
    for number in range(4):
        desk.body(str(number), 245, held=False, speed=SLOW_BYTES_PER_S)
    with pytest.raises(Overloaded):
        desk.memory.check(100)
    assert desk.ended == []


def test_a_body_alone_is_let_in() -> None:
    """A bound below one body does not keep every body out."""
    desk = Desk()
    share = desk.body("large", 5 * MOST)
    share.take(MOST)
    with pytest.raises(Overloaded):
        desk.memory.check(1)


def test_a_body_that_is_done_takes_nothing() -> None:
    """Whatever it took and freed, at its end everything is free, and what is freed later counts no more."""
    desk = Desk()
    share = desk.body("a", 100)
    share.free(30)
    assert desk.memory.bytes == 70
    desk.memory.end(share)
    assert desk.memory.bytes == 0
    share.free(70)
    assert desk.memory.bytes == 0
