"""When a batch is cut, and its way from waiting reports to a sealed archive: claim, aggregate, seal."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.batching import aggregate
from gateway.core import disk
from gateway.core.bounded import Bounded
from gateway.core.errors import is_full
from gateway.core.streams import Stream
from gateway.core.text import readable
from gateway.spool.directories import Claimed
from gateway.spool.spool import Spool
from gateway.telemetry.log import Log
from gateway.telemetry.repeated_failure import Defect, Repeated

# How many archives' summaries are kept for the delivery; what is older is read from the archive again.
KEPT_SUMMARIES = 1000
FAILURE_PAUSE_S = 5.0
SEAL_PAUSE_S = 1.0
LOOK_PAUSE_S = 1.0
# What an archive may have above its lines, where they cannot be compressed, and its directory.
ARCHIVE_OVERHEAD_BYTES = 64 * 1024


class Summaries:
    """What is known of sealed archives without reading them, for the newest of them."""

    def __init__(self) -> None:
        self._kept: Bounded[str, aggregate.Summary] = Bounded(KEPT_SUMMARIES)

    def keep(self, batch: str, summary: aggregate.Summary) -> None:
        """Remember one; the oldest are forgotten beyond the bound."""
        self._kept[batch] = summary

    def get(self, batch: str) -> aggregate.Summary | None:
        """The summary of a batch sealed by this process, if it is still kept."""
        return self._kept.get(batch)

    def forget(self, batch: str) -> None:
        """The batch is delivered."""
        self._kept.pop(batch, None)


class Batcher:
    """Cuts the batches of one report stream.

    Args:
        spool: what it claims from.
        stream: whose reports.
        host: the machine's name in the names of objects.
        gzip_level: 0 to 3.
        cut_segments: has what was acknowledged so far stand in cut segments, so that it can be claimed.
        on_sealed: called after each seal.

    Attributes:
        trouble: what keeps batches from being made, in text that can be encoded; None if nothing does.
    """

    def __init__(
        self,
        spool: Spool,
        stream: Stream,
        *,
        host: str,
        gzip_level: int,
        summaries: Summaries,
        cut_segments: Callable[[], Awaitable[None]],
        on_sealed: Callable[[], None],
        log: Log,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._stream = stream
        self._host = host
        assert stream.cut is not None  # only what is merged has batches
        self._cut = stream.cut
        self._gzip_level = gzip_level
        self._summaries = summaries
        self._cut_segments = cut_segments
        self._on_sealed = on_sealed
        self._monotonic = monotonic
        self._wake = asyncio.Event()
        self._log = log
        self._failures = Repeated(log, "aggregation failed", "aggregation recovered")
        self._busy = asyncio.Lock()
        self._stopping = False
        self.trouble: str | None = None
        self._defect = Defect(log, f"aggregation of {stream.name}")

    def stop(self) -> None:
        """Have `run` return after the step it is at; a step is never left in the middle of a thread's work."""
        self._stopping = True
        self._wake.set()

    def wake(self) -> None:
        """Something became claimable; it may be enough for a batch."""
        self._wake.set()

    async def run(self) -> None:
        """Cut batches until stopped: when the interval is over, or as soon as there is enough for one."""
        next_tick = self._monotonic() + self._cut.interval_s
        not_before = self._monotonic()
        if not await self._attempt(self._resume):
            not_before += FAILURE_PAUSE_S
        while True:
            tick_is_due = await self._wait(next_tick, not_before)
            if self._stopping:
                return
            if tick_is_due:
                next_tick = self._monotonic() + self._cut.interval_s
                done = await self._attempt(self.batch_everything)
            else:
                done = await self._attempt(self._batch_full_ones)
            if not done:
                not_before = self._monotonic() + FAILURE_PAUSE_S
                next_tick = min(next_tick, not_before)

    async def batch_everything(self) -> None:
        """Seal all that was committed so far; OSError, once the rest is done, if the disk does not let all of it."""
        await self._cut_segments()
        async with self._busy:
            stuck = await self._resume_claimed()
            while await self._batch_next():
                continue
            if stuck is not None:
                raise stuck

    async def seal_everything(self) -> None:
        """Like `batch_everything`, as often as it takes."""
        while True:
            if await self._attempt(self.batch_everything):
                return
            await asyncio.sleep(SEAL_PAUSE_S)

    async def _resume(self) -> None:
        async with self._busy:
            stuck = await self._resume_claimed()
            if stuck is not None:
                raise stuck

    async def _batch_full_ones(self) -> None:
        async with self._busy:
            while self._is_enough():
                if not await self._batch_next():
                    break
            else:
                return
        # What is counted stands behind a commit that is not durable yet, which wakes us when it is; or someone took files
        # away, and a count that stays too high would have us look for ever.
        await asyncio.to_thread(self._spool.accounting.recount_claimable, self._stream)
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_PAUSE_S):
                await self._wake.wait()

    async def _attempt(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Take a step; what the disk refuses is logged, and nothing is lost: every state is found again."""
        try:
            await self._with_room(step)
        except OSError as error:
            self._failures.failed(stream=self._stream.name, reason=str(error))
            self.trouble = readable(str(error))
            return False
        except Exception as error:  # noqa: BLE001 (a defect of ours must not end the aggregation for good)
            self._defect.met(error)
            return False
        self._defect.ended()
        self._failures.ended(stream=self._stream.name)
        self.trouble = None
        return True

    async def _with_room(self, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step, and once more with the room of the ballast, if that is what is missing."""
        try:
            await step()
        except OSError as error:
            if not await asyncio.to_thread(self._spool.ballast.give_up, error):
                raise
            await step()

    async def _wait(self, next_tick: float, not_before: float) -> bool:
        """Wait for the tick, or from `not_before` on for enough to cut; true for the tick."""
        while (left := next_tick - (now := self._monotonic())) > 0:
            self._wake.clear()
            if self._stopping or (now >= not_before and self._is_enough()):
                return False
            try:
                async with asyncio.timeout(min(left, not_before - now) if now < not_before else left):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return True

    def _is_enough(self) -> bool:
        claimable = self._spool.accounting.claimable[self._stream.name]
        return claimable.bytes >= self._cut.max_bytes or 0 < self._cut.max_records <= claimable.records

    async def _batch_next(self) -> bool:
        """Seal the oldest of what waits; false if nothing does.

        A batch is no larger than the room that is left for its archive. Where that is not enough for one file, or not even for a
        directory, the file is sealed as it is: what was acknowledged can always leave.
        """
        room = await asyncio.to_thread(self._room)
        try:
            claimed = await asyncio.to_thread(self._spool.claim, self._stream, min(self._cut.max_bytes, room), self._host)
        except OSError as error:
            oldest = await asyncio.to_thread(self._spool.oldest_claimable, self._stream) if is_full(error) else None
            if oldest is None:
                raise
            await self._seal_unpacked([oldest])
            return True
        if claimed is not None:
            await self._aggregate(claimed)
        return claimed is not None

    def _room(self) -> int:
        """Bytes that an archive may take: other streams may make one at the same time."""
        streams = sum(stream.cut is not None for stream in self._spool.streams)
        return max(0, disk.file_system(self._spool.root).free_bytes // streams - ARCHIVE_OVERHEAD_BYTES)

    async def _resume_claimed(self) -> OSError | None:
        """Finish the batches that a crash or a failure left between claim and seal.

        One that cannot be finished, for a source on a bad sector say, holds up no other; its error is returned.
        """
        stuck: OSError | None = None
        for claimed in await asyncio.to_thread(self._spool.directories.claimed, self._stream):
            try:
                await asyncio.to_thread(self._spool.settle, claimed)
                await self._aggregate(claimed)
            except OSError as error:
                stuck = error
        return stuck

    async def _aggregate(self, claimed: Claimed) -> None:
        sources = await asyncio.to_thread(self._spool.sources, claimed)
        room = await asyncio.to_thread(self._room)
        if sum(path.stat().st_size for path in sources) > room and not await asyncio.to_thread(self._is_sealed, claimed):
            await self._give_up_archive(claimed, sources)
            return
        try:
            summary = await asyncio.to_thread(self._aggregate_and_seal, claimed)
            if summary is not None:
                self._summaries.keep(str(claimed.batch), summary)
        except OSError as error:
            if is_full(error) and not await asyncio.to_thread(self._is_sealed, claimed):
                # Somebody else has taken the room.
                await self._give_up_archive(claimed, await asyncio.to_thread(self._spool.sources, claimed))
                return
            if not claimed.directory.exists():
                # Sealed all the same, its sources gone: no later look at what is claimed will find it.
                self._on_sealed()
            raise
        self._on_sealed()

    def _is_sealed(self, claimed: Claimed) -> bool:
        return self._spool.directories.sealed_as(self._stream, claimed.batch) is not None

    async def _give_up_archive(self, claimed: Claimed, sources: list[Path]) -> None:
        """Seal each source as it is, since there is no room for them once more; a crash leaves some of them claimed."""
        await self._seal_unpacked(sources)
        await asyncio.to_thread(self._spool.remove_sources, claimed)

    async def _seal_unpacked(self, sources: list[Path]) -> None:
        for path in sources:
            batch = self._spool.batch_of(path, self._host)
            try:
                await asyncio.to_thread(self._spool.seal_unpacked, self._stream, path, batch)
                self._log.info("sealed unpacked", stream=self._stream.name, batch=str(batch), reason="no room for an archive")
            finally:
                # Moved it may be all the same, and then nobody else would say so.
                self._on_sealed()

    def _aggregate_and_seal(self, claimed: Claimed) -> aggregate.Summary | None:
        if self._spool.directories.sealed_as(self._stream, claimed.batch) is not None:
            # Sealed already; only the removal of the sources had failed.
            self._spool.remove_sources(claimed)
            return None
        sources = self._spool.sources(claimed)
        if not sources:
            self._spool.remove_sources(claimed)
            return None
        archive = self._spool.new_tmp()
        summary = aggregate.aggregate(sources, archive, self._gzip_level)
        try:
            self._spool.seal(claimed, archive, sources)
        finally:
            # What was not put in place must not fill the disk, try after try.
            disk.remove(archive)
        return summary
