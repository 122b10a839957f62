"""From claimed files to one gzip archive of lines: streaming, and the same bytes for the same input."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from isal import isal_zlib

from gateway import disk

# 16 more than the window's bits asks zlib for a gzip header, which then carries no time and no name.
GZIP_WINDOW_BITS = 31
# The stubs of isal say less of it than is so.
ISAL_ERROR = cast("type[Exception]", isal_zlib.error)
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in an archive: the number of lines, and the SHA-256 (hexadecimal) of them uncompressed."""

    lines: int
    sha256: str


class Unreadable(ValueError):
    """The archive is not whole."""


def aggregate(sources: Iterable[Path], archive: Path, level: int) -> Summary:
    """Write the lines of the sources, in their order, into a new synced gzip file.

    Blocks; the work is done in C without the interpreter's lock. A failure leaves no archive behind.

    Args:
        sources: files of lines.
        archive: the name of the new file.
        level: 0 to 3, of isal.
    """
    descriptor = disk.create(archive)
    compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, GZIP_WINDOW_BITS)
    counted = _Counted()
    try:
        for chunk in _chunks(sources):
            counted.add(chunk)
            compressed = compressor.compress(chunk)
            if compressed:
                disk.write_all(descriptor, [compressed])
        disk.write_all(descriptor, [compressor.flush()])
        disk.sync(descriptor)
    except BaseException:
        disk.remove(archive)
        raise
    finally:
        disk.close(descriptor)
    return counted.summary()


def _chunks(sources: Iterable[Path]) -> Iterator[bytes]:
    for source in sources:
        last = b"\n"
        for chunk in disk.read_chunks(source):
            last = chunk[-1:]
            yield chunk
        if last != b"\n":
            # Never so in what this program spooled; two reports in one line would be the loss of both.
            yield b"\n"


def summarize(archive: Path) -> Summary:
    """Read an archive again, and find out what `aggregate` said of it; `Unreadable` if it is torn or corrupt."""
    counted = _Counted()
    decompressor = isal_zlib.decompressobj(GZIP_WINDOW_BITS)
    try:
        for chunk in disk.read_chunks(archive):
            data = chunk
            while data:
                counted.add(decompressor.decompress(data, _READ_BYTES))
                data = decompressor.unconsumed_tail
        counted.add(decompressor.flush())
    except ISAL_ERROR as error:
        raise Unreadable(f"not a whole gzip file: {error}") from error
    if not decompressor.eof or decompressor.unused_data:
        raise Unreadable("not a whole gzip file")
    return counted.summary()


class _Counted:
    def __init__(self) -> None:
        self._lines = 0
        self._hash = hashlib.sha256()

    def add(self, chunk: bytes) -> None:
        self._lines += chunk.count(b"\n")
        self._hash.update(chunk)

    def summary(self) -> Summary:
        return Summary(self._lines, self._hash.hexdigest())
