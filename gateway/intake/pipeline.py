"""The way of a body from its source into a draft: one piece is written by a thread while the next one comes.

    source ─▶ piece ─▶ draft (content, lines, file) ─▶ what became of it

What goes wrong anywhere ends the body, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from typing import TypeVar

from gateway.admission.descriptors import OpenFiles
from gateway.admission.write_fault import WriteFault
from gateway.core.errors import Overloaded, SpoolBroken, SpoolFull, Unanswerable
from gateway.intake.body import BodyReader, Incoming, Piece
from gateway.intake.content import Chunks
from gateway.intake.staging import Draft

T = TypeVar("T")

# Where a piece comes from: `BodyReader.gather`, or `fill` for a large body.
Source = Callable[[], Awaitable[Piece]]
# What the disk has refused, of all that ends a body.
DISK_ERRORS = (SpoolFull, SpoolBroken, Overloaded, Unanswerable)


class Pipeline:
    """What the bodies of one process share.

    Args:
        executor: the threads that write drafts.
        write_fault: where their success and failure is noted.
        files: has descriptors for them.
    """

    def __init__(self, executor: Executor, write_fault: WriteFault, files: OpenFiles) -> None:
        self._executor = executor
        self._write_fault = write_fault
        self._files = files

    async def run(self, incoming: Incoming, reader: BodyReader, source: Source, draft: Draft, finish: Callable[[Chunks], T]) -> T:
        """Have a draft take a body.

        Args:
            incoming: the body.
            reader: that the source is of.
            source: gives the pieces.
            draft: takes them, in a thread.
            finish: gives the draft the last of them, and returns what became of it; in a thread, if that may take long.

        Raises:
            GatewayError: why not; then the draft is gone.
        """
        try:
            rest = await self._feed(incoming, reader, source, draft)
            if draft.ends_at_once(rest):
                return finish(rest)
            incoming.reservation.handed_on(incoming.received_bytes)
            result = await _finished(self._in_thread(lambda: finish(rest)))
        except BaseException as error:
            if isinstance(error, DISK_ERRORS) and isinstance(error.__cause__, OSError):
                self._write_fault.failed(incoming.stream, error)
            # What kept the body out is what the response says; a draft that cannot be removed is erased at the next start.
            if draft.is_written:
                with contextlib.suppress(OSError):
                    await _finished(self._in_thread(draft.discard))
            raise
        finally:
            if reader.has_file:
                self._files.close_body()
        if draft.is_written:
            # Else it says nothing of the disk.
            self._write_fault.succeeded()
        return result

    async def _feed(self, incoming: Incoming, reader: BodyReader, source: Source, draft: Draft) -> Chunks:
        """Read while the piece before is being written, and return the last piece."""
        writing: asyncio.Future[None] | None = None
        try:
            while True:
                piece = await source()
                if piece.is_last:
                    break
                if writing is not None:
                    with reader.standing():
                        await _finished(writing)
                else:
                    self._begin(incoming, reader)
                incoming.reservation.handed_on(sum(map(len, piece.chunks)))
                writing = self._in_thread(partial(_feed_piece, draft, piece))
                writing.add_done_callback(partial(_written, piece))
        finally:
            # Also when the client is gone: the draft must not be discarded under a thread that writes it.
            if writing is not None:
                await _over(writing)
        if writing is not None:
            writing.result()
        return piece.chunks

    def _begin(self, incoming: Incoming, reader: BodyReader) -> None:
        """Take what a body needs that is received for longer; not from its head, or a few heads would take it from others."""
        self._files.open_body()
        reader.has_file = True
        if incoming.content.memory_bytes:
            incoming.reservation.memory.take(incoming.content.memory_bytes)

    def _in_thread(self, step: Callable[[], T]) -> asyncio.Future[T]:
        """Have a thread begin with a step of a draft: at once, and not when the loop next turns."""
        return asyncio.get_running_loop().run_in_executor(self._executor, step)


async def _finished(running: asyncio.Future[T]) -> T:
    await _over(running)
    return running.result()


async def _over(running: asyncio.Future[T]) -> None:
    """Wait for a step in a thread, and never leave before it is over: the next step would meet it there."""
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            # Cancelled again, as a stop does, it waits again.
            cancelled = error
    # Looked at, or the loop would complain of an error that nobody takes: there may be another to be reported.
    running.exception()
    if cancelled is not None:
        raise cancelled


def _feed_piece(draft: Draft, piece: Piece) -> None:
    if piece.is_early:
        draft.spill()
    draft.feed(piece.chunks)


def _written(piece: Piece, _: asyncio.Future[None]) -> None:
    piece.written()
