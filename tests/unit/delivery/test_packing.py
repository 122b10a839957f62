"""A file of lines is read as the archive that it becomes, the same bytes each time and from anywhere."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.packing import Packed
from testkit.spool import folder_in_memory

LINES = b"".join(b'{"number":%d}\n' % (number * 7919) for number in range(100_000))


@pytest.fixture(scope="module")
def packed() -> Iterator[Packed]:
    """Give an archive of a file of more than a chunk."""
    with folder_in_memory() as folder:
        path = folder / "lines"
        path.write_bytes(LINES)
        yield Packed(path)


def test_an_archive_is_of_its_lines(packed: Packed) -> None:
    """It holds the lines, and says how many they are, their hash, and its own size before it is read."""
    with packed.open() as reader:
        data = reader.read()
    assert gzip.decompress(data) == LINES
    assert packed.size == len(data)
    assert (packed.summary.lines, packed.summary.sha256) == (100_000, hashlib.sha256(LINES).hexdigest())


def test_an_empty_file_is_an_archive_of_nothing(tmp_path: Path) -> None:
    """No line is no error."""
    (tmp_path / "lines").write_bytes(b"")
    packed = Packed(tmp_path / "lines")
    with packed.open() as reader:
        assert gzip.decompress(reader.read()) == b""
    assert packed.summary.lines == 0


@given(st.lists(st.tuples(st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END]), st.integers(-3000, 3000)), max_size=6))
def test_it_is_read_like_a_file(packed: Packed, moves: list[tuple[int, int]]) -> None:
    """Wherever it is read from, forward or back, the bytes are those of the whole archive at that place."""
    with packed.open() as reader, packed.open() as whole:
        data = whole.read()
        for whence, offset in moves:
            base = {io.SEEK_SET: 0, io.SEEK_CUR: reader.tell(), io.SEEK_END: len(data)}[whence]
            expected = min(len(data), max(0, base + offset))
            assert reader.seek(offset, whence) == expected
            assert reader.read(100) == data[expected : expected + 100]
            assert reader.tell() == min(len(data), expected + 100)
