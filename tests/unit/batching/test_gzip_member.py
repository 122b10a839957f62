"""What `GzipMember` writes is one gzip member, whoever compresses its pieces."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batching.gzip_member import GzipMember

PIECES = st.lists(st.binary(min_size=1, max_size=80), max_size=12)


class Late(Executor):
    """Does nothing until a result is asked for, and then everything, the last first: the worst order there is."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Put the work off."""
        future = LateResult(self)
        self.waiting.append(lambda: future.set_result(fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        """Do all that waits."""
        while self.waiting:
            self.waiting.pop()()


class LateResult(Future[Any]):
    """Has the work done when it is asked for."""

    def __init__(self, executor: Late) -> None:
        super().__init__()
        self._executor = executor

    def result(self, timeout: float | None = None) -> Any:
        """Give the result."""
        self._executor.work()
        return super().result(timeout)


def member(pieces: Sequence[bytes], *, compressors: Executor | None = None, ahead: int = 2, level: int = 2) -> bytes:
    """Give the bytes of a member."""
    written: list[bytes] = []
    made = GzipMember(written.extend, level, compressors or Late(), ahead)
    for piece in pieces:
        made.add(piece)
    made.finish()
    return b"".join(written)


@given(PIECES, st.integers(0, 3))
def test_a_member_holds_its_pieces(pieces: list[bytes], level: int) -> None:
    """The pieces come out of it in their order, and it is one member, with nothing behind it."""
    made = member(pieces, level=level)
    reader = zlib.decompressobj(31)
    assert reader.decompress(made) == b"".join(pieces) == gzip.decompress(made)
    assert reader.eof
    assert not reader.unused_data


@given(PIECES, st.integers(0, 9))
def test_the_order_of_the_work_does_not_show(pieces: list[bytes], ahead: int) -> None:
    """However many pieces are in work, and whichever of them is ready first, the bytes are the same."""
    assert member(pieces, ahead=ahead) == member(pieces, ahead=0)


def test_the_number_of_threads_does_not_show() -> None:
    """Real threads, a piece that takes long before many that do not: the same bytes."""
    chance = random.Random(1)
    pieces = [chance.randbytes(1 << 20), *(chance.randbytes(chance.randrange(1, 3000)) for _ in range(40))]
    for threads in (1, 2, 5):
        with ThreadPoolExecutor(threads) as compressors:
            assert member(pieces, compressors=compressors, ahead=2 * threads) == member(pieces)


def test_a_piece_knows_the_one_before_it() -> None:
    """What came in the last 32 KiB is not written again, though a piece is compressed by itself."""
    piece = random.Random(1).randbytes(20_000)
    assert len(member([piece, piece])) < len(member([piece])) + 500


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_no_more_is_ahead_than_allowed(ahead: int) -> None:
    """A piece is written once `ahead` others are behind it, so no more than these are ever held."""
    written: list[Sequence[bytes]] = []
    made = GzipMember(written.append, 2, Late(), ahead)
    for number in range(8):
        made.add(b"%d\n" % number)
        # The header is the first thing written.
        assert len(written) - 1 == max(0, number + 1 - ahead)


def test_the_size_in_the_trailer_begins_again_at_4_gib() -> None:
    """The trailer of gzip has room for 32 bits of the size, and takes the lowest."""
    written: list[bytes] = []
    made = GzipMember(written.extend, 2, Late(), 0)
    made._size = (1 << 32) - 2
    made.add(b"12345")
    made.finish()
    assert written[-1][4:] == (3).to_bytes(4, "little")


def test_a_failing_write_is_told() -> None:
    """What `write` raises comes out of `add` or `finish`."""

    def full(_: Sequence[bytes]) -> None:
        if written:
            raise OSError("No space left on device")
        written.append(1)

    written: list[int] = []
    with pytest.raises(OSError, match="No space"):
        GzipMember(full, 2, Late(), 0).add(b"1\n")
    written.clear()
    made = GzipMember(full, 2, Late(), 1)
    made.add(b"1\n")
    with pytest.raises(OSError, match="No space"):
        made.finish()


def test_a_failing_compression_is_told() -> None:
    """What goes wrong in a thread comes out of `add` or `finish`."""
    with ThreadPoolExecutor(1) as compressors:
        # No level of isal.
        made = GzipMember(lambda _: None, 99, compressors, 2)
        made.add(b"1\n")
        with pytest.raises(ValueError, match="level"):
            made.finish()
