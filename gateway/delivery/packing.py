"""A file of lines as the gzip archive that it becomes, compressed while it is read.

For what was sealed on a disk without room for an archive. It is read several times, to know its size before it is sent and to
be signed, and gives the same bytes each time.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isal import isal_zlib

from gateway.batching.aggregate import GZIP_WINDOW_BITS, Summary
from gateway.core import disk

LEVEL = 1


class Packed:
    """An archive that is nowhere on the disk.

    Args:
        path: the file of lines, whole and ended by LF.

    Attributes:
        path: where it is now.
        size: of the archive, in bytes.
        summary: of its lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        content = hashlib.sha256()
        lines = 0
        for chunk in disk.read_chunks(path):
            content.update(chunk)
            lines += chunk.count(b"\n")
        self.size = sum(map(len, _compressed(path)))
        self.summary = Summary(lines, content.hexdigest())

    def open(self) -> io.IOBase:
        """The archive, to be read."""
        return _Reader(self.path, self.size)


def _compressed(path: Path) -> Iterator[bytes]:
    # No time stands in its head, so that it is the same each time.
    compressor = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW_BITS)
    for chunk in disk.read_chunks(path):
        yield compressor.compress(chunk)
    yield compressor.flush()


class _Reader(io.RawIOBase):
    """Reads the archive from its beginning; to go back is to begin anew."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._path = path
        self._size = size
        self._begin()

    def _begin(self) -> None:
        self._position = 0
        self._chunks = _compressed(self._path)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True: botocore reads a body once to sign it and once to send it."""
        return True

    def tell(self) -> int:
        """The position within the archive."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position and return it."""
        target = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence])
        if target < self._position:
            self._begin()
        while self._position < target and self.read(min(target - self._position, disk.COPY_CHUNK_BYTES)):
            continue
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what comes next, at most the buffer's size."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        view = memoryview(buffer)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self._position += count
        return count
