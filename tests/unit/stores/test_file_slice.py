"""A part of a file reads as a file of its own would."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stores.file_slice import FileSlice, body_of

DATA = bytes(range(256)) * 4


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file."""
    made = tmp_path_factory.mktemp("slices") / "file"
    made.write_bytes(DATA)
    return made


positions = st.integers(-50, 1200)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(-1, 1200)),
        st.tuples(st.just("readinto"), st.integers(0, 300)),
        st.tuples(st.just("set"), st.integers(0, 1200)),
        st.tuples(st.just("current"), positions),
        st.tuples(st.just("end"), positions),
    ),
    max_size=12,
)


def take(file: io.RawIOBase | io.BytesIO, step: str, number: int) -> object:
    """Take one step, and give what came of it."""
    if step == "read":
        return file.read(number)
    if step == "readinto":
        buffer = bytearray(number)
        return file.readinto(buffer), bytes(buffer)
    whence = {"set": io.SEEK_SET, "current": io.SEEK_CUR, "end": io.SEEK_END}[step]
    return file.seek(number, whence)


@given(start=st.integers(0, len(DATA)), size=st.integers(0, len(DATA)), steps=steps)
def test_a_slice_is_a_file(path: Path, start: int, size: int, steps: list[tuple[str, int]]) -> None:
    """Whatever is read and sought in a slice, it answers as a file of those bytes alone would."""
    size = min(size, len(DATA) - start)
    with FileSlice(path, start, size) as slice_, io.BytesIO(DATA[start : start + size]) as model:
        for step, number in steps:
            assert take(slice_, step, number) == take(model, step, number)
            assert slice_.tell() == model.tell()


def test_a_slice_can_be_sought_and_read_only(path: Path) -> None:
    """A client library sees that it may read a slice twice, and that it may not write to it."""
    with FileSlice(path, 1, 2) as slice_:
        assert (slice_.readable(), slice_.seekable(), slice_.writable()) == (True, True, False)


def test_a_closed_slice_holds_no_file(path: Path) -> None:
    """Closing a slice, twice too, closes its file, and it can be read no more."""
    slice_ = FileSlice(path, 0, 10)
    slice_.close()
    slice_.close()
    with pytest.raises(ValueError, match="closed"):
        slice_.read(1)
    assert slice_._file.closed


def test_a_body_is_bytes_or_a_slice(path: Path) -> None:
    """The bytes themselves are a body as a part of a file is."""
    with body_of(b"few", 0, 3) as body:
        assert body.read() == b"few"
    with body_of(path, 10, 5) as body:
        assert body.read() == DATA[10:15]
