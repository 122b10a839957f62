"""A part of a file, read as if it were a file of its own."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gateway.core import disk
from gateway.stores import Source


class FileSlice(io.RawIOBase):
    """A part of a file that reads, seeks and ends like a file of its own, so that no part is ever held in memory."""

    def __init__(self, path: Path, start: int, size: int) -> None:
        # First: one that cannot be opened has nothing to be closed.
        file = disk.open_file(path)
        super().__init__()
        self._file = file
        self._start = start
        self._size = size
        self._file.seek(start)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: botocore reads a body once to sign it and once to send it."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position within the slice and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size}[whence]
        return self._file.seek(self._start + max(0, base + offset)) - self._start

    def tell(self) -> int:
        """The position within the slice."""
        return self._file.tell() - self._start

    def readinto(self, buffer: Any) -> int:
        """Read what is left of the slice, at most the buffer's size."""
        left = max(0, self._size - self.tell())
        return self._file.readinto(memoryview(buffer)[:left]) or 0

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_file"):
            self._file.close()
        super().close()


def body_of(source: Source, start: int, size: int) -> io.IOBase:
    """Open the body of a request: of a file the part that begins at `start`, all else whole."""
    if isinstance(source, Path):
        return FileSlice(source, start, size)
    return io.BytesIO(source) if isinstance(source, bytes) else source.open()
