"""One gzip member whose pieces are compressed side by side: the same bytes by however many threads."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Final

from isal import isal_zlib

# Neither a time nor a name, and no operating system.
_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
# A block of nothing that is marked as the last: what ends the pieces is not known to any of them.
_LAST_BLOCK: Final = b"\x03\0"
_TRAILER: Final = struct.Struct("<II")
# Asks zlib for blocks alone, without a header and a trailer of their own.
_RAW_WINDOW_BITS: Final = -15
# As far as deflate looks back.
_WINDOW_BYTES: Final = 32 * 1024

_Compressed = tuple[list[bytes], int]


class GzipMember:
    """Writes pieces, in their order, as one gzip member; what it writes depends on the pieces and the level alone.

    Each piece is compressed by itself, knows the 32 KiB before it, and ends at a byte (a sync flush), so that the blocks
    of all of them in a row are one stream.

    Args:
        write: takes buffers and writes them all. Only called in the thread that calls `add` and `finish`, which so get its
            errors.
        level: 0 to 3, of isal.
        compressors: run the compression.
        ahead: the most pieces that wait or are compressed while `add` returns. They are all that is held in memory.
    """

    def __init__(self, write: Callable[[Sequence[bytes]], object], level: int, compressors: Executor, ahead: int) -> None:
        self._write = write
        self._level = level
        self._compressors = compressors
        self._ahead = ahead
        self._begun: deque[tuple[int, Future[_Compressed]]] = deque()
        self._window = b""
        self._checksum = 0
        self._size = 0
        write([_HEADER])

    def add(self, piece: bytes) -> None:
        """Begin a piece, and write those that are enough behind."""
        self._begun.append((len(piece), self._compressors.submit(_compress, piece, self._window, self._level)))
        self._window = piece[-_WINDOW_BYTES:]
        self._write_all_but(self._ahead)

    def finish(self) -> None:
        """Write what is left, and the end of the member."""
        self._write_all_but(0)
        self._write([_LAST_BLOCK, _TRAILER.pack(self._checksum, self._size & 0xFFFFFFFF)])

    def _write_all_but(self, left: int) -> None:
        while len(self._begun) > left:
            size, compression = self._begun.popleft()
            blocks, checksum = compression.result()
            self._checksum = isal_zlib.crc32_combine(self._checksum, checksum, size)
            self._size += size
            self._write(blocks)


def _compress(piece: bytes, window: bytes, level: int) -> _Compressed:
    """The blocks of a piece, and its CRC-32; in C, without the interpreter's lock."""
    compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, _RAW_WINDOW_BITS, zdict=window)
    blocks = [compressor.compress(piece), compressor.flush(isal_zlib.Z_SYNC_FLUSH)]
    return blocks, isal_zlib.crc32(piece)
