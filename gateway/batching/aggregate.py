"""From claimed files to one gzip archive of lines: streaming, and the same bytes for the same input."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from isal import isal_zlib

from gateway.batching.gzip_member import GzipMember
from gateway.core import disk
from gateway.formats import byte_count

# 16 more than the window's bits asks zlib for a gzip header.
GZIP_WINDOW_BITS = 31
# The stubs of isal say less of it than is so.
ISAL_ERROR = cast("type[Exception]", isal_zlib.error)
# What is compressed at a time. Where pieces end is part of an archive's bytes: it depends on the sources, never on the
# machine, so that an aggregation begun on one and repeated on another gives the same archive.
PIECE_BYTES = 1 << 20
# The hash is the work of one thread whatever the cores; three compressors give it all that it can take.
MAX_COMPRESSORS = 3
# How much further behind these threads stand than the one that answers requests.
NICENESS = 5
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Summary:
    """What is in an archive: the number of lines, and the SHA-256 (hexadecimal) of them uncompressed."""

    lines: int
    sha256: str


class UnreadableArchive(ValueError):
    """The archive is not whole."""


def aggregate(sources: Iterable[Path], archive: Path, level: int, compressors: int | None = None) -> Summary:
    """Write the lines of the sources, in their order, into a new synced gzip file.

    Blocks. This thread reads, counts and writes; others hash and compress, in C without the interpreter's lock. It takes
    some 4 MiB for each compressor, whatever the batch. A failure leaves neither an archive nor a thread behind.

    Args:
        sources: files of lines.
        archive: the name of the new file.
        level: 0 to 3, of isal.
        compressors: how many threads compress, by default what suits the machine. It does not show in the archive.
    """
    compressors = compressors or usual_compressors()
    descriptor = disk.create(archive)
    try:
        with _threads(compressors) as pool, _threads(1) as hasher:
            counted = _Counted(hasher)
            member = GzipMember(partial(disk.write_all, descriptor), level, pool, ahead=2 * compressors)
            for piece in _pieces(sources):
                counted.add(piece)
                member.add(piece)
            member.finish()
            summary = counted.summary()
        disk.sync(descriptor)
    except BaseException:
        disk.remove(archive)
        raise
    finally:
        disk.close(descriptor)
    return summary


def usual_compressors() -> int:
    """One for each core that this process may use, but for the one that reads and hashes; from 1 to 3."""
    if sys.version_info >= (3, 13):
        cores = os.process_cpu_count() or 1
    else:
        cores = len(os.sched_getaffinity(0))
    return min(max(cores - 1, 1), MAX_COMPRESSORS)


def _pieces(sources: Iterable[Path]) -> Iterator[bytes]:
    """The lines in pieces from `PIECE_BYTES` to less than a chunk above that; only the last one may be smaller."""
    held: list[bytes] = []
    size = 0
    for chunk in _chunks(sources):
        held.append(chunk)
        size += len(chunk)
        if size >= PIECE_BYTES:
            # A chunk that is a piece already is not copied.
            piece = b"".join(held)
            held.clear()
            size = 0
            yield piece
    if held:
        yield b"".join(held)


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
    """Read an archive again, and find out what `aggregate` said of it; `UnreadableArchive` if it is torn or corrupt."""
    decompressor = isal_zlib.decompressobj(GZIP_WINDOW_BITS)
    with _threads(1) as hasher:
        counted = _Counted(hasher)
        try:
            for chunk in disk.read_chunks(archive):
                data = chunk
                while data:
                    counted.add(decompressor.decompress(data, _READ_BYTES))
                    data = decompressor.unconsumed_tail
            counted.add(decompressor.flush())
        except ISAL_ERROR as error:
            raise UnreadableArchive(f"not a whole gzip file: {error}") from error
        if not decompressor.eof or decompressor.unused_data:
            raise UnreadableArchive("not a whole gzip file")
        return counted.summary()


class _Counted:
    """Counts and hashes what goes by: one piece is hashed while the next one is read, and no more than one waits."""

    def __init__(self, hasher: Executor) -> None:
        self._lines = 0
        self._hash = hashlib.sha256()
        self._hasher = hasher
        self._hashing = hasher.submit(self._hash.update, b"")

    def add(self, piece: bytes) -> None:
        self._lines += byte_count.count(piece, b"\n")
        self._hashing.result()
        self._hashing = self._hasher.submit(self._hash.update, piece)

    def summary(self) -> Summary:
        self._hashing.result()
        return Summary(self._lines, self._hash.hexdigest())


def _threads(count: int) -> Executor:
    return ThreadPoolExecutor(count, "aggregate", _give_way)


def _give_way() -> None:
    """Have the requests come first, where a thread may say so: receiving cannot wait, and a batch can."""
    with suppress(OSError):
        # To Linux, 0 is the calling thread and not its process.
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
