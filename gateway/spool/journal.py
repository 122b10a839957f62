"""Segments and group commit: many small reports made durable by one sync.

One writer thread for each stream takes a round of reports, appends it to the open segment, syncs, and only then has the
requests answered. While a sync runs the next round gathers, and after it for a moment longer, so the slower the disk, the
larger the rounds.

    append ─▶ round: write, fdatasync ─▶ done(None)
                     │ fails
                     ▼
              restore: nothing of the round may stay readable ─▶ done(error)

Reports come from the event loop's thread alone, and `done` is called there too. The writer is woken once for each round, not
for each report: on a busy core every switch between the two threads costs as much as a report.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.core import clock, disk
from gateway.core.errors import GatewayError, Overloaded, SpoolBroken, Stopping, Unanswerable, again, refusal
from gateway.core.streams import Stream
from gateway.spool import names
from gateway.spool.owner import ELSEWHERE
from gateway.spool.spool import Spool
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.repeated_failure import Repeated

Done = Callable[[GatewayError | None], None]

RESTORE_PAUSE_S = 1.0
_ADRIFT = "a segment is not where it was written, or was changed by somebody else"
# Of a small report.
SMALL_BYTES = 1024
# How long a round may wait for more reports while they keep coming.
GATHER_S = 0.0005


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When a segment is cut, and how much may wait to be written."""

    max_bytes: int
    max_age_s: float
    pending_bytes: int
    # 0 for any number.
    max_records: int = 0


# When it was received, the lines and the callback; a plain tuple because one is made for each report.
_Entry = tuple[int, bytes, Done]


@dataclass(slots=True)
class _Segment:
    path: Path
    descriptor: int
    # Of receipt, in hours since the epoch.
    hour: int
    # When the first report in it was, in nanoseconds since the epoch.
    received: int
    opened_at: float
    written: int = 0
    synced: int = 0
    records: int = 0
    # Whether its path was seen to lead elsewhere.
    is_adrift: bool = False


class _Cut:
    """Asks the writer to end its segment; `done` is called in the writer thread."""

    def __init__(self, done: Callable[[], object], *, last: bool = False) -> None:
        self.done = done
        self.last = last


class Journal:
    """The writer of one report stream's segments.

    Args:
        spool: where the segments are.
        stream: whose they are.
        limits: see `SegmentLimits`.
        log, metrics: where failures and the times of syncs are reported.
        on_defect: called in the event loop's thread when the writer has failed in a way that only a new process mends.
    """

    def __init__(
        self,
        spool: Spool,
        stream: Stream,
        limits: SegmentLimits,
        *,
        log: Log,
        metrics: Metrics,
        on_defect: Callable[[], object] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._stream = stream
        self._limits = limits
        self._on_defect = on_defect
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        # What was appended and not yet taken by the writer.
        self._appended: collections.deque[_Entry] = collections.deque()
        self._wakes: queue.SimpleQueue[_Cut | None] = queue.SimpleQueue()
        # Whether the loop waits for more of a round, and how many there were a turn ago; whether the writer has one.
        self._is_gathering = self._is_writing = False
        self._gathered = 0
        self._gather_until = 0.0
        self._pending_bytes = 0
        self._closed = False
        self._ended = asyncio.Event()
        self._segment: _Segment | None = None
        self._log = log
        self._sync_seconds = metrics.sync_duration.labels(stream.name)
        # Set by the writer while the segment cannot be trusted, read by the loop: new reports are refused meanwhile.
        self.fault: GatewayError | None = None
        # Taken by the writer, and neither answered nor among the unanswerable.
        self._in_hand: list[_Entry] = []
        # Rounds that cannot even be answered with an error yet, because their bytes may still be readable on the disk.
        self._unanswerable: list[tuple[list[_Entry], GatewayError]] = []
        self._failed_sync = False
        self._is_dead = False
        self._failures = Repeated(log, "spool failed", "spool recovered", level="error")
        self._uncut = Repeated(log, "segment not cut", "segment cut again", level="error")
        self._thread = threading.Thread(target=self._run, name=f"journal-{stream.name}", daemon=True)

    def start(self) -> None:
        """Begin to write what is appended."""
        self._thread.start()

    def current_fault(self) -> GatewayError | None:
        """What keeps reports out at the moment, None if nothing does."""
        return self.fault

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be written that a small report would find no room behind it."""
        return bool(self._pending_bytes) and self._pending_bytes + SMALL_BYTES > self._limits.pending_bytes

    # --- the event loop's side ------------------------------------------------------------------------------------

    def append(self, received: int, data: bytes, done: Done) -> None:
        """Have whole lines written; `done` is called once they are synced, or with the error that kept them out.

        Args:
            received: nanoseconds since the epoch, by the clock.
            data: lines, each ended by LF; all of them go into one segment, side by side.
            done: called in the event loop's thread.

        Raises:
            Overloaded: too much waits to be written.
            SpoolFull, SpoolBroken: the segment cannot be written at the moment.
        """
        if self.fault is not None:
            raise again(self.fault)
        if self._closed:
            raise Stopping("the gateway is stopping")
        if self._pending_bytes and self._pending_bytes + len(data) > self._limits.pending_bytes:
            raise Overloaded("too many reports wait to be written")
        self._pending_bytes += len(data)
        self._appended.append((received, data, done))
        if not self._is_gathering and not self._is_writing:
            self._begin_to_gather()

    def _begin_to_gather(self) -> None:
        """Wait for more as long as more comes, and for a moment at most: a round costs the same however large it is."""
        self._is_gathering = True
        self._gathered = 0
        self._gather_until = self._monotonic() + GATHER_S
        self._loop.call_soon(self._gather_more)

    def _gather_more(self) -> None:
        if len(self._appended) > self._gathered and self._monotonic() < self._gather_until:
            self._gathered = len(self._appended)
            # After the connections that have something to read in this turn of the loop.
            self._loop.call_soon(self._gather_more)
            return
        self._is_gathering = False
        if self._appended:
            # Until these are answered; a cut may have the writer take them before it sees this.
            self._is_writing = True
            self._wakes.put(None)

    async def cut(self) -> None:
        """Return once everything appended before stands in cut segments, or the log has said why it cannot be cut."""
        if self._closed:
            # The writer ends with its last cut, and would never see another.
            await self._ended.wait()
            return
        await self._ask(last=False)

    async def close(self) -> None:
        """Cut, and end the writer; later calls of `append` raise `Stopping`."""
        if not self._closed:
            self._closed = True
            try:
                await self._ask(last=True)
                await asyncio.to_thread(self._thread.join)
            finally:
                self._ended.set()

    async def _ask(self, *, last: bool) -> None:
        if not self._thread.is_alive():
            return
        asked = self._loop.create_future()

        def answer() -> None:
            if not asked.done():
                asked.set_result(None)

        self._wakes.put(_Cut(lambda: self._loop.call_soon_threadsafe(answer), last=last))
        await asked

    def _answer(self, entries: list[_Entry], error: GatewayError | None) -> None:
        self._pending_bytes -= _size_of(entries)
        self._is_writing = False
        if self._appended and not self._is_gathering:
            self._begin_to_gather()
        for _, _, done in entries:
            try:
                done(again(error) if error is not None else None)
            except Exception as defect:  # noqa: BLE001 (the other requests of the round wait for their answers)
                self._log.error("defect", where=f"answers of {self._stream.name}", reason=repr(defect))

    def _answer_soon(self, entries: list[_Entry], error: GatewayError | None) -> None:
        del self._in_hand[: len(entries)]
        self._respond(entries, error)

    def _respond(self, entries: list[_Entry], error: GatewayError | None) -> None:
        self._call_soon(self._answer, entries, error)

    def _call_soon(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            # The loop was closed by a second signal: nobody is left to be answered, and what was written stays.
            self._closed = True

    # --- the writer's side ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            entries, cuts = self._gather()
            if self._is_dead:
                self._answer_soon(entries, self.fault)
            else:
                self._work_or_die(entries, ask_cut=bool(cuts))
            for cut in cuts:
                cut.done()
            if any(cut.last for cut in cuts):
                return

    def _work_or_die(self, entries: list[_Entry], *, ask_cut: bool) -> None:
        try:
            self._work(entries, ask_cut=ask_cut)
        except Exception as error:  # noqa: BLE001 (a defect of ours: without this the requests would wait for ever)
            self._log.error("defect", where=f"journal of {self._stream.name}", reason=repr(error))
            self.fault = SpoolBroken("the writer failed, and this process is about to end")
            self._is_dead = True
            # Of what the writer had in hand it is not known whether it stays.
            held = [entry for round_, _ in self._unanswerable for entry in round_]
            self._respond([*held, *self._in_hand], Unanswerable("the writer failed with these reports in hand"))
            # After the answers: this callback may stop the process.
            self._call_soon(self._on_defect)

    def _work(self, entries: list[_Entry], *, ask_cut: bool) -> None:
        if self.fault is not None:
            self._try_to_restore()
        if entries:
            if self.fault is None:
                self._rounds(entries)
            else:
                self._answer_soon(entries, self.fault)
        if self.fault is None and (ask_cut or self._is_due()):
            self._try_to_cut()

    def _gather(self) -> tuple[list[_Entry], list[_Cut]]:
        """Wait for something to do, then take all there is."""
        cuts: list[_Cut] = []
        try:
            asked = self._wakes.get(timeout=self._patience())
            while True:
                if asked is not None:
                    cuts.append(asked)
                asked = self._wakes.get_nowait()
        except queue.Empty:
            # After the cuts: what was appended before one of them has to be in its segment.
            entries = [self._appended.popleft() for _ in range(len(self._appended))]
            self._in_hand = list(entries)
            return entries, cuts

    def _patience(self) -> float | None:
        if self.fault is not None:
            return RESTORE_PAUSE_S
        if self._segment is None:
            return None
        return max(0.0, self._segment.opened_at + self._limits.max_age_s - self._monotonic())

    def _is_due(self) -> bool:
        segment = self._segment
        return segment is not None and (
            segment.synced >= self._limits.max_bytes
            or 0 < self._limits.max_records <= segment.records
            or self._monotonic() - segment.opened_at >= self._limits.max_age_s
        )

    def _rounds(self, entries: list[_Entry]) -> None:
        """Write what was gathered: one round, or one for each hour where the hour turns, or the clock was stepped, among them."""
        while entries:
            hour = entries[0][0] // clock.HOUR_NS
            begin, end = hour * clock.HOUR_NS, (hour + 1) * clock.HOUR_NS
            # A clock that steps back may bring an hour again; those of one are written together, and the others after them.
            of_hour = [entry for entry in entries if begin <= entry[0] < end]
            others = [entry for entry in entries if not begin <= entry[0] < end] if len(of_hour) < len(entries) else []
            if others:
                # In the order in which they are answered.
                self._in_hand = [*of_hour, *others]
            self._round(hour, of_hour)
            entries = others
            if self.fault is not None and entries:
                self._answer_soon(entries, self.fault)
                return

    def _round(self, hour: int, entries: list[_Entry]) -> None:
        begun = self._monotonic()
        self._failed_sync = False
        try:
            segment = self._segment_of(hour, entries[0][0])
            if disk.size_of(segment.descriptor) != segment.written:
                raise _gone_adrift(segment)
            segment.written += disk.write_all(segment.descriptor, [data for _, data, _ in entries])
            # From here on a failure is one of the sync: the kernel may have dropped the pages and call them clean, so
            # that a second sync says yes to what is not on the disk.
            self._failed_sync = True
            disk.sync(segment.descriptor)
            # Else somebody has cut the file, or the name leads to another one: what is in it is nobody's promise.
            if not disk.is_at(segment.path, segment.descriptor, segment.written):
                raise _gone_adrift(segment)
            self._spool.ownership.check_if_old()
        except OSError as error:
            self._fail(entries, error)
            return
        segment.synced = segment.written
        if self._limits.max_records:
            segment.records += sum(data.count(b"\n") for _, data, _ in entries)
        self._spool.accounting.appended(self._stream, _size_of(entries))
        self._sync_seconds.observe(self._monotonic() - begun)
        self._answer_soon(entries, None)
        self._failures.ended(stream=self._stream.name)
        if self._is_due():
            self._try_to_cut()

    def _segment_of(self, hour: int, received: int) -> _Segment:
        if self._segment is not None and self._segment.hour != hour:
            self._cut()
        if self._segment is None:
            name = names.spool_name(self._spool.timestamps.next(), received, self._spool.pid, names.OPEN_SEGMENT)
            path = self._spool.directories.of(self._stream) / name
            segment = _Segment(path, disk.create(path), hour, received, self._monotonic())
            self._segment = segment
            self._spool.accounting.opened(self._stream)
            if not self._spool.ownership.is_there(path.parent):
                segment.is_adrift = True
                # In a directory that has taken the place of ours nobody would find it. One that was made in ours, just before
                # that was moved, has no name now: it is dropped once the directory is back.
                if disk.is_at(path, segment.descriptor):
                    disk.remove(path)
                raise OSError(errno.ESTALE, ELSEWHERE, str(path))
            # Before the first acknowledgement: a synced file that no name leads to is lost after a power cut.
            disk.sync_directory(path.parent)
        return self._segment

    def _try_to_cut(self) -> None:
        try:
            self._spool.ballast.take(self._cut_or_rescue)
        except OSError as error:
            # It stays open, is written to as before, and is tried again at its next age.
            self._uncut.failed(stream=self._stream.name, reason=str(error))
            if self._segment is not None:
                self._segment.opened_at = self._monotonic()
        else:
            self._uncut.ended(stream=self._stream.name)

    def _cut_or_rescue(self) -> None:
        segment = self._segment
        if segment is not None and not disk.is_at(segment.path, segment.descriptor, segment.synced):
            self._recover_adrift(segment)
        else:
            self._cut()

    def _cut(self) -> None:
        """End the open segment. A crash at any line leaves it open, to be cut at the next start."""
        segment = self._segment
        if segment is None:
            return
        directory = segment.path.parent
        records = self._spool.accounting.records_in(self._stream, segment.path)
        with self._spool.accounting.change():
            cut = segment.path.with_name(segment.path.name.removesuffix(".open"))
            disk.place(segment.path, cut)
            self._segment = None
            self._spool.accounting.abandoned(self._stream, segment.synced)
            self._spool.accounting.waits(self._stream, segment.synced)
            self._spool.now_claimable(self._stream, segment.synced, records)
        disk.close(segment.descriptor)
        with contextlib.suppress(OSError):
            # Every line is synced under one of the two names, and a claim syncs the directory again before it reads.
            disk.sync_directory(directory)

    # --- after a failed round -------------------------------------------------------------------------------------

    def _fail(self, entries: list[_Entry], cause: OSError) -> None:
        error = refusal(cause)
        self._failures.failed(stream=self._stream.name, reason=str(cause))
        self.fault = error
        self._unanswerable.append((entries, error))
        del self._in_hand[: len(entries)]
        self._try_to_restore()

    def _try_to_restore(self) -> None:
        """Bring the segment back to its last synced byte; until that is done no report is accepted."""
        try:
            self._spool.ballast.take(self._restore)
        except OSError as cause:
            self._hide_unsynced(cause)
            return
        self.fault = None
        self._failed_sync = False
        self._answer_unanswerable()

    def _restore(self) -> None:
        segment = self._segment
        if segment is None:
            return
        # Before any path is touched: it may lead to what another gateway has by now.
        self._spool.ownership.must_hold()
        if segment.is_adrift or not disk.is_at(segment.path, segment.descriptor):
            segment.is_adrift = True
            self._recover_adrift(segment)
        elif segment.synced == 0:
            self._drop(segment)
        elif self._failed_sync:
            self._copy_to_trusted(segment)
        else:
            # Only a write failed, most often for want of room, and then a copy would find none either. What was synced
            # was never in doubt.
            try:
                self._cut_off_last_round(segment)
            except OSError:
                # A sync was in it, and a second one may say yes to what is not on the disk.
                self._failed_sync = True
                raise

    def _drop(self, segment: _Segment) -> None:
        """Remove a segment in which nothing was acknowledged."""
        # By its descriptor as well: its path may lead elsewhere, and what is answered with an error must not appear.
        disk.truncate_unsynced(segment.descriptor, 0)
        disk.remove(segment.path)
        disk.sync_directory(segment.path.parent)
        self._segment = None
        self._spool.accounting.abandoned(self._stream, 0)
        disk.close(segment.descriptor)

    def _recover_adrift(self, segment: _Segment) -> None:
        """The name of the segment leads elsewhere, or somebody has changed it: what was acknowledged stays on its way.

        Raises:
            OSError: as long as the directory is not this gateway's, or not where it was.
        """
        before = segment.synced
        self._cut_off_last_round(segment)
        self._spool.ownership.must_hold()
        if disk.is_at(segment.path, segment.descriptor, segment.synced):
            # What stood in the way is gone.
            segment.is_adrift = False
            if segment.synced == 0:
                self._drop(segment)
            elif segment.synced < before:
                # Somebody cuts it short, perhaps again and again: nothing more comes to it.
                self._cut()
            else:
                # Nothing is known of the sync that came before it was found.
                self._copy_to_trusted(segment)
            return
        accounting = self._spool.accounting
        cut = self._spool.cut_name_of(self._stream, segment.path, segment.descriptor)
        draft = None
        if segment.synced and cut is None:
            # It was removed. Its bytes are there for as long as the descriptor is.
            draft = self._spool.new_tmp()
            disk.copy_open(segment.descriptor, draft, segment.synced)
            name = names.spool_name(self._spool.timestamps.next(), segment.received, self._spool.pid, names.CUT_SEGMENT)
            cut = segment.path.with_name(name)
        records = 0 if cut is None else accounting.records_in(self._stream, draft or cut)
        with accounting.change():
            if draft is not None and cut is not None:
                try:
                    disk.place(draft, cut)
                except OSError:
                    disk.remove(draft)
                    raise
            self._segment = None
            accounting.abandoned(self._stream, segment.synced)
            if cut is not None and cut.parent == segment.path.parent:
                accounting.waits(self._stream, segment.synced)
                self._spool.now_claimable(self._stream, segment.synced, records)
        if draft is not None and cut is not None:
            disk.sync_directory(cut.parent)
            with contextlib.suppress(OSError):
                # It may stand elsewhere after all, and would be delivered from there as well.
                disk.truncate(segment.descriptor, 0)
        disk.close(segment.descriptor)
        if draft is not None and cut is not None:
            self._log.warning("segment rescued", stream=self._stream.name, file=segment.path, bytes=segment.synced, copy=cut)

    def _cut_off_last_round(self, segment: _Segment) -> None:
        """Have nothing stand behind what was acknowledged, durably."""
        self._hide_last_round(segment)
        disk.sync(segment.descriptor)

    def _hide_last_round(self, segment: _Segment) -> None:
        """What is answered with an error must not appear. The file is never made longer: somebody may have made it shorter."""
        size = disk.size_of(segment.descriptor)
        kept = segment.synced
        if size < segment.written:
            # The last round stands at the end, wherever that is now; of a line that was cut through nothing is kept.
            kept = disk.end_of_last_line(segment.descriptor, max(0, size - (segment.written - segment.synced)))
        if size > kept:
            disk.truncate_unsynced(segment.descriptor, kept)
        # At once, since the same may have to be done again.
        missing = segment.synced - kept
        segment.written = segment.synced = kept
        if missing:
            self._log.error("segment truncated", stream=self._stream.name, file=segment.path, bytes=missing)
            self._spool.accounting.appended(self._stream, -missing)

    def _copy_to_trusted(self, segment: _Segment) -> None:
        """After a failed sync no page of the old file is trusted: its synced prefix moves to a file of its own."""
        draft = self._spool.new_tmp()
        disk.copy_part(segment.path, draft, 0, segment.synced)
        try:
            descriptor = disk.reopen(draft)
        except OSError:
            disk.remove(draft)
            raise
        try:
            disk.replace(draft, segment.path)
        except OSError:
            disk.close(descriptor)
            disk.remove(draft)
            raise
        # At once: whatever fails from here on, the copy is the segment. And in this order: a number that was closed may by now
        # be the descriptor of another file.
        old, segment.descriptor = segment.descriptor, descriptor
        segment.written = segment.synced
        disk.close(old)
        disk.sync_directory(segment.path.parent)

    def _hide_unsynced(self, cause: OSError) -> None:
        """The disk does not let us restore yet: at least cut the failed lines off, so that their senders can be answered.

        Where not even that is possible nobody is answered: a line that is answered with an error must never appear.
        """
        segment = self._segment
        try:
            if segment is not None:
                self._hide_last_round(segment)
        except OSError:
            self._failures.failed(stream=self._stream.name, reason=f"cannot be restored: {cause}")
            return
        self._answer_unanswerable()

    def _answer_unanswerable(self) -> None:
        for entries, error in self._unanswerable:
            self._respond(entries, error)
        self._unanswerable.clear()


def _gone_adrift(segment: _Segment) -> OSError:
    segment.is_adrift = True
    return OSError(errno.ESTALE, _ADRIFT, str(segment.path))


def _size_of(entries: list[_Entry]) -> int:
    return sum([len(data) for _, data, _ in entries])
