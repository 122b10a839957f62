"""The buffers of a large body take memory by what is in them, and give it back when memory is short."""

from __future__ import annotations

import pytest

from gateway.admission.memory import Memory, Share
from gateway.core.errors import Overloaded
from gateway.intake.buffers import Buffers

SIZE = 64 << 10


@pytest.fixture
def memory() -> Memory:
    """Give a memory for three buffers."""
    return Memory(3 * SIZE)


def begun(memory: Memory) -> Share:
    """The share of a body that has begun."""
    return Share(memory)


def test_a_buffer_takes_what_is_used_of_it(memory: Memory) -> None:
    """Memory is taken as bytes come, and what was written stays taken for the next bytes."""
    buffers = Buffers(SIZE, begun(memory))
    first = buffers.next()
    assert memory.bytes == 0
    first.use(100)
    first.use(SIZE)
    buffers.done(first)
    assert (memory.bytes, buffers.idle_bytes) == (SIZE, SIZE)
    assert buffers.next() is first
    first.use(50)
    assert memory.bytes == SIZE


def test_no_more_than_two_are_made(memory: Memory) -> None:
    """One is filled while the other is written, and then they change."""
    buffers = Buffers(SIZE, begun(memory))
    first, second = buffers.next(), buffers.next()
    assert first is not second
    for done in (first, second, first):
        buffers.done(done)
        assert buffers.next() is done


def test_what_was_written_is_given_back_when_memory_is_short(memory: Memory) -> None:
    """Idle buffers at once, and the one that is being written when that is done; what comes next is as good as ever."""
    buffers = Buffers(SIZE, begun(memory))
    idle, busy = buffers.next(), buffers.next()
    idle.use(SIZE)
    busy.use(1000)
    idle.view[:3] = b"abc"
    buffers.done(idle)
    buffers.give_back()
    assert memory.bytes == 1000
    # The kernel has taken its pages back, and gives empty ones.
    assert bytes(idle.view[:3]) == b"\0\0\0"
    buffers.done(busy)
    assert memory.bytes == 0
    buffers.keep()
    again = buffers.next()
    again.use(SIZE)
    again.view[:] = b"x" * SIZE
    buffers.done(again)
    assert memory.bytes == SIZE


def test_a_buffer_finds_no_memory_where_others_have_it(memory: Memory) -> None:
    """A body whose bytes find no memory is told so."""
    other = begun(memory)
    other.take(3 * SIZE)
    with pytest.raises(Overloaded):
        Buffers(SIZE, begun(memory)).next().use(1)
