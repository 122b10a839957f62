"""Bodies on their way to the disk: decoded, checked, hashed and written under `tmp/`, piece by piece, in a thread.

A draft keeps the first bytes in memory, so that a body which turns out small needs no file of its own. It is fed by one
thread at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Protocol

from gateway.core import disk, media_type
from gateway.core.errors import refusal
from gateway.core.streams import Stream
from gateway.formats.envelope import Envelope
from gateway.formats.json_lines import DocumentFolder, Folder, NdjsonFolder, is_ndjson
from gateway.intake.content import Chunks, Content
from gateway.spool.sidecar import Sidecar
from gateway.spool.spool import Spool

# So much is gathered before the disk is asked to begin with it.
WRITE_BEHIND_BYTES = 8 << 20
ENVELOPE_CHUNK_BYTES = 64 * 1024


class Draft(Protocol):
    """A body that is being received."""

    @property
    def is_written(self) -> bool:
        """Whether some of it was written to the disk, be it gone or committed by now."""
        ...

    def ends_at_once(self, rest: Chunks) -> bool:
        """Whether to finish it with these last bytes takes so little that it needs no thread."""
        ...

    def feed(self, chunks: Chunks) -> None:
        """Take bytes as they were sent; a GatewayError ends the draft."""
        ...

    def spill(self) -> None:
        """Keep nothing in memory from now on, because that is short and the rest may be long in coming."""
        ...

    def discard(self) -> None:
        """Remove what was written, if it was not committed."""
        ...


class Room(Protocol):
    """Room on the disk, asked for before each write; see `BodyReservation`."""

    def charge(self, size: int) -> None:
        """So much is about to be written: SpoolFull if there is no room for it."""
        ...

    def landed(self, size: int) -> None:
        """It is written, or could not be."""
        ...


class _File:
    """A file under `tmp/` that becomes something or goes away."""

    def __init__(self, spool: Spool, room: Room) -> None:
        self.path = spool.new_tmp()
        self.size = 0
        # What of it is counted as used, in the accounting: also what a failed write has not brought to the disk.
        self._charged = 0
        self._room = room
        self._begun = 0
        self._spool = spool
        self._descriptor: int | None = disk.create(self.path)

    def write(self, data: bytes | memoryview) -> None:
        assert self._descriptor is not None  # nothing is written after `finish`
        size = len(data)
        self._room.charge(size)
        self._charged += size
        try:
            self.size += disk.write_all(self._descriptor, [data])
        finally:
            self._room.landed(size)
        if self.size - self._begun >= WRITE_BEHIND_BYTES:
            disk.begin_writing(self._descriptor, self._begun, self.size - self._begun)
            self._begun = self.size

    def read(self, size: int, chunk_bytes: int) -> Iterator[bytes]:
        """The first `size` bytes that were written."""
        with self.path.open("rb", buffering=0) as file:
            while size and (chunk := file.read(min(size, chunk_bytes))):
                size -= len(chunk)
                yield chunk

    def finish(self) -> None:
        """Sync and close."""
        if self._descriptor is not None:
            disk.sync(self._descriptor)
            self._close()

    def committed(self) -> None:
        """It is counted as what it has become."""
        self._spool.accounting.unstaged(self._charged)
        self._charged = 0

    def discard(self) -> None:
        self.committed()
        try:
            self._close()
        finally:
            disk.remove(self.path)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            disk.close(descriptor)


class ReportDraft:
    """One or many reports.

    Args:
        spool: where the file goes if one is needed.
        content: one report or many, by its type.
        memory_bytes: up to so many bytes of it stay in memory; 0 for none.
        room: what it writes has to find there.
    """

    def __init__(
        self,
        spool: Spool,
        content: Content,
        memory_bytes: int,
        room: Room,
    ) -> None:
        self._spool = spool
        self._room = room
        self._content = content
        self._memory_bytes = memory_bytes
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._file: _File | None = None
        self.is_written = False

    @cached_property
    def _folder(self) -> Folder:
        """Makes lines of a body that is too large for memory; once some of it has come, and so its type is known."""
        return NdjsonFolder() if is_ndjson(self._content.type) else DocumentFolder()

    def feed(self, chunks: Chunks) -> None:
        """See `Draft.feed`."""
        _take_all(self._content.feed(chunks), self._take)

    def _take(self, piece: bytes | memoryview) -> None:
        if self._file is None and self._kept_bytes + len(piece) <= self._memory_bytes:
            self._kept.append(bytes(piece))
            self._kept_bytes += len(piece)
            return
        if self._file is None:
            self._file = self._written()
        self._file.write(self._folder.feed(bytes(piece)))

    def _written(self) -> _File:
        """A file, with what was kept in memory."""
        self.is_written = True
        file = _File(self._spool, self._room)
        # At once, so that it is discarded whatever fails.
        self._file = file
        for kept in self._kept:
            file.write(self._folder.feed(kept))
        self._kept.clear()
        self._kept_bytes = 0
        return file

    def ends_at_once(self, rest: Chunks) -> bool:
        """See `Draft.ends_at_once`: a small body of nothing to be decoded only stays in memory."""
        size = self._kept_bytes + sum(map(len, rest))
        return self._content.is_plain and not self.is_written and 0 < self._memory_bytes >= size

    def spill(self) -> None:
        """See `Draft.spill`."""
        self._memory_bytes = 0
        if self._kept:
            try:
                self._written()
            except OSError as error:
                raise refusal(error) from error

    def finish(self, rest: Chunks, stream: Stream, user: str, *, envelope: bool) -> bytes | int:
        """Take the last bytes, then return the body if it stayed in memory, or commit it and return how many reports."""
        self.feed(rest)
        self._content.finish()
        if self._file is None and self._memory_bytes:
            return b"".join(self._kept)
        try:
            self._commit(stream, user, envelope=envelope)
        except OSError as error:
            raise refusal(error) from error
        return self._folder.lines

    def _commit(self, stream: Stream, user: str, *, envelope: bool) -> None:
        if self._file is None:
            self._file = self._written()
        self._file.write(self._folder.finish())
        received = self._spool.timestamps.now()
        if envelope:
            around = Envelope(user, received)
            around.check(self._file.size, self._folder.lines, stream.max_body_bytes)
            self._file = self._enveloped(self._file, around)
        self._file.finish()
        self._spool.commit_report(stream, self._file.path, received, user)
        self._file.committed()
        self._file = None

    def _enveloped(self, bare: _File, around: Envelope) -> _File:
        """Write the lines once more, each in its envelope: what stands in it is known only now, at the commit."""
        enveloped = _File(self._spool, self._room)
        try:
            # Without the LF that ends the last line.
            for chunk in around.around_all(bare.read(bare.size - 1, around.chunk_bytes(ENVELOPE_CHUNK_BYTES))):
                enveloped.write(chunk)
            bare.discard()
        except BaseException:
            enveloped.discard()
            raise
        return enveloped

    def discard(self) -> None:
        """See `Draft.discard`."""
        if self._file is not None:
            self._file.discard()


class FileDraft:
    """A file that is kept as it is.

    Args:
        spool: where the file goes.
        content: the file.
        room: what it writes has to find there.
    """

    def __init__(self, spool: Spool, content: Content, room: Room) -> None:
        self._spool = spool
        self._room = room
        self._content = content
        self._file: _File | None = None
        self._hash = hashlib.sha256()
        self._first_bytes = b""
        self.is_written = False

    def ends_at_once(self, rest: Chunks) -> bool:
        """See `Draft.ends_at_once`: it is always written."""
        del rest
        return False

    def feed(self, chunks: Chunks) -> None:
        """See `Draft.feed`."""
        _take_all(self._content.feed(chunks), self._take)

    def _take(self, piece: bytes | memoryview) -> None:
        if self._file is None:
            self._file = self._written()
        if len(self._first_bytes) < media_type.MAGIC_BYTES:
            self._first_bytes += bytes(piece[: media_type.MAGIC_BYTES])
        self._hash.update(piece)
        self._file.write(piece)

    def _written(self) -> _File:
        self.is_written = True
        return _File(self._spool, self._room)

    def finish(self, rest: Chunks, stream: Stream, *, identity: str, user: str, uri: str) -> None:
        """Take the last bytes, then commit the file with its sidecar; what a form says of the file counts before the head."""
        self.feed(rest)
        self._content.finish()
        claims = self._content.claims(uri)
        try:
            if self._file is None:
                self._file = self._written()  # an empty file is a file
            self._file.finish()
            sidecar = Sidecar(
                id=identity,
                user=user,
                uri=claims.uri,
                type=media_type.content_type(claims.content_type, self._first_bytes),
                received=self._spool.timestamps.now(),
                size=self._file.size,
                sha256=self._hash.hexdigest(),
                filename=claims.filename,
                fields=claims.fields,
            )
            size = len(sidecar.to_json())
            self._room.charge(size)
            try:
                self._spool.commit_file(stream, self._file.path, sidecar)
            finally:
                self._room.landed(size)
                self._spool.accounting.unstaged(size)
        except OSError as error:
            raise refusal(error) from error
        self._file.committed()
        self._file = None

    def spill(self) -> None:
        """See `Draft.spill`: nothing is kept in memory anyway."""

    def discard(self) -> None:
        """See `Draft.discard`."""
        if self._file is not None:
            self._file.discard()


def _take_all(pieces: Iterable[bytes | memoryview], take: Callable[[bytes | memoryview], None]) -> None:
    """Take them; what the disk refuses becomes an error that has a response."""
    try:
        for piece in pieces:
            take(piece)
    except OSError as error:
        raise refusal(error) from error
