"""How much waits in the spool, kept true through every change, over all processes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

from gateway.core import clock, disk
from gateway.core.shared_counters import SharedCounters
from gateway.core.streams import Stream
from gateway.formats import byte_count
from gateway.spool import names
from gateway.spool.directories import CLAIMABLE, Directories, of_kinds
from gateway.spool.left_streams import LeftStream, left_streams
from gateway.spool.tally import Tally
from gateway.telemetry.metrics import Waiting

# Files, their bytes, and the records in them.
Counted = tuple[int, int, int]


class Accounting:
    """Counts what is in the spool.

    Each step of the spool calls the method of its transition; where a process died between a change and its count, all is counted
    anew. Nobody outside this package counts.

    Args:
        layout: where things are.
        counters: where the counts stand.
    """

    def __init__(self, layout: Directories, counters: SharedCounters) -> None:
        self._layout = layout
        # What was committed and is not delivered yet.
        self.waiting = {stream.name: Tally(counters, f"waiting {stream.name}") for stream in layout.streams}
        # Of these, what a claim would find.
        self.claimable = {stream.name: Tally(counters, f"claimable {stream.name}") for stream in layout.streams}
        # Segments that are being written, which are not among the others until they are cut.
        self.open = {stream.name: Tally(counters, f"open {stream.name}") for stream in layout.streams}
        # Of streams that are not configured any more; nothing changes it while the gateway runs.
        self.left = Tally(counters, "left")
        # Bytes under `tmp/` of bodies that are being received.
        self.staged = Tally(counters, "staged")
        # Of the bytes of such bodies, since the start: how many a process was about to write, and how many are written.
        self.written = counters.integers("written", 2)
        # How many changes of what waits were begun, and how many are done and counted.
        self._changes = counters.integers("changes", 2)
        self._changes_lock = threading.Lock()
        self._correcting = threading.Lock()

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """A change of what waits, and its count: a recount waits until none is under way."""
        with self._changes_lock:
            self._changes.mine[0] += 1
        try:
            yield
        finally:
            with self._changes_lock:
                self._changes.mine[1] += 1

    # --- transitions ------------------------------------------------------------------------------------------------

    def opened(self, stream: Stream) -> None:
        """A segment has a name, and nothing is in it."""
        self.open[stream.name].add(1, 0)

    def appended(self, stream: Stream, size: int) -> None:
        """So many bytes of lines are synced in the open segment, or below 0 were lost from it."""
        self.open[stream.name].add(0, size)

    def abandoned(self, stream: Stream, size: int) -> None:
        """The open segment, with so many synced bytes, is none any more."""
        self.open[stream.name].add(-1, -size)

    def waits(self, stream: Stream, size: int) -> None:
        """A file of so many bytes waits for delivery."""
        self.waiting[stream.name].add(1, size)

    def waits_no_more(self, stream: Stream, size: int) -> None:
        """A file that waited is removed, or set aside."""
        self.waiting[stream.name].add(-1, -size)

    def now_claimable(self, stream: Stream, size: int, records: int) -> None:
        """A claim may take a file from now on; its records were counted before, or a claim may have been there first."""
        self.claimable[stream.name].add(1, size, records)

    def claimed(self, stream: Stream, size: int, records: int) -> None:
        """A file is in a batch, and no other claim finds it."""
        self.claimable[stream.name].add(-1, -size, -records)

    def charge(self, size: int) -> None:
        """So many bytes of a body are about to be written under `tmp/`."""
        self.staged.add(0, size)
        self.written.mine[0] += size

    def take_back(self, size: int) -> None:
        """So many bytes that were charged are not written after all."""
        self.staged.add(0, -size)
        self.written.mine[0] -= size

    def landed(self, size: int) -> None:
        """So many bytes that were charged are written, or could not be."""
        self.written.mine[1] += size

    def unstaged(self, size: int) -> None:
        """So many bytes of a body have left `tmp/`, for the spool or for good."""
        self.staged.add(0, -size)

    def is_left(self, files: int, size: int) -> None:
        """So much waits of a stream that is not configured."""
        self.left.add(files, size)

    def begin_anew(self, stream: Stream) -> None:
        """Recovery counts all of a stream that it finds."""
        self.waiting[stream.name].reset()
        self.claimable[stream.name].reset()

    @staticmethod
    def records_in(stream: Stream, path: Path) -> int:
        """See `count_records`; a file that cannot be read is found out when it is aggregated."""
        try:
            return count_records(stream, path)
        except OSError:
            return 0

    # --- how much ---------------------------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """Bytes of received data in the spool."""
        return self.staged.bytes + self.left.bytes + sum(tally.bytes for tally in (*self.waiting.values(), *self.open.values()))

    def waiting_files(self) -> int:
        """How many files wait to be delivered."""
        return self.left.files + sum(tally.files for tally in (*self.waiting.values(), *self.open.values()))

    def of_each_stream(self) -> Iterator[Waiting]:
        """What waits of each stream, for the metrics."""
        now = time.time_ns()
        for stream in self._layout.streams:
            waiting, writing = self.waiting[stream.name], self.open[stream.name]
            oldest_at = self.oldest_instant(stream)
            age_s = 0.0 if oldest_at is None else _age_s(oldest_at, now)
            yield Waiting(stream.name, waiting.files + writing.files, waiting.bytes + writing.bytes, age_s)
        if self.left.files:
            for left in self._left_streams:
                yield Waiting(left.name, left.files, left.bytes, _age_s(left.oldest, now))

    @cached_property
    def _left_streams(self) -> list[LeftStream]:
        """Looked for once in each process: there may be many files, and nothing changes them while the gateway runs."""
        return left_streams(self._layout)

    def oldest_instant(self, stream: Stream) -> int | None:
        """When the oldest thing that waits was received, in nanoseconds; to the hour for claimed and sealed batches."""
        return min(self._instants(stream), default=None)

    def _instants(self, stream: Stream) -> Iterator[int]:
        for name in disk.names(self._layout.of(stream)):
            spooled = names.parse_spool_name(name)
            # A sidecar may be left of a body that was taken back; it goes at the next start.
            if spooled is not None and spooled.kind != names.SIDECAR:
                yield spooled.received_ns
        for name in disk.names(self._layout.aggregation(stream)):
            batch = names.parse_batch(name)
            if batch is not None:
                yield clock.instant_of(batch.hour)
        for name in disk.names(self._layout.uploading(stream)):
            sealed = names.parse_sealed(name)
            if sealed is not None:
                yield clock.instant_of(sealed[0].hour)

    # --- counting anew ----------------------------------------------------------------------------------------------

    def forget_process(self, column: int) -> bool:
        """A process that shared the counters has died, and what it left in the spool was put in order.

        Returns:
            Whether it died between a change and its count, so that all has to be counted anew.
        """
        begun, done = self._changes.columns[column]
        for stream in self._layout.streams:
            self.open[stream.name].forget(column)
        self.staged.forget(column)
        self.written.columns[column][1] = self.written.columns[column][0]
        self._changes.columns[column][1] = begun
        return begun != done

    def recount(self) -> bool:
        """Count anew all that waits, because a process died between a change and its count.

        False if something changed meanwhile: then nothing was corrected, and it has to be tried again.
        """
        streams = self._layout.streams
        tallies = [tally for stream in streams for tally in (self.waiting[stream.name], self.claimable[stream.name])]
        return self._correct(tallies, lambda: [count for stream in streams for count in self._count_all(stream)])

    def recount_claimable(self, stream: Stream) -> None:
        """Count anew what a claim would find, where a claim found nothing: a person may have taken files away."""
        self._correct([self.claimable[stream.name]], lambda: [self._count(stream, CLAIMABLE)])

    def _correct(self, tallies: list[Tally], count: Callable[[], list[Counted]]) -> bool:
        """Have tallies say what is counted now; False, and nothing done, if something changed meanwhile."""
        with self._correcting:
            changes = [tuple(column) for column in self._changes.columns]
            before = [(tally.files, tally.bytes, tally.records) for tally in tallies]
            found = count()
            if changes != [tuple(column) for column in self._changes.columns] or any(begun != done for begun, done in changes):
                return False
            # By how much it was wrong, so that what is counted from now on stays counted.
            for tally, counted, true in zip(tallies, before, found, strict=True):
                tally.add(*(now - then for now, then in zip(true, counted, strict=True)))
            return True

    def _count(self, stream: Stream, kinds: tuple[str, ...]) -> Counted:
        """How many files of these kinds wait in the directory of a stream, their bytes, and the records in them."""
        files = size = records = 0
        for spooled in of_kinds(self._layout.of(stream), kinds):
            path = self._layout.of(stream) / str(spooled)
            files += 1
            size += _size_of(path)
            with contextlib.suppress(FileNotFoundError):
                records += count_records(stream, path)
        return files, size, records

    def _count_all(self, stream: Stream) -> tuple[Counted, Counted]:
        """Files and bytes of all that waits of a stream, and of what a claim would find; open segments are not among it."""
        if not stream.form.has_segments:
            return self._count(stream, (names.BODY,)), (0, 0, 0)
        files, size, _ = claimable = self._count(stream, CLAIMABLE)
        for name in disk.names(self._layout.uploading(stream)):
            if names.parse_sealed(name):
                files += 1
                size += _size_of(self._layout.uploading(stream) / name)
        for path in (path for claimed in self._layout.claimed(stream) for path in claimed.sources()):
            files += 1
            size += _size_of(path)
        return (files, size, 0), claimable


def count_records(stream: Stream, path: Path) -> int:
    """How many records a segment or a whole report holds, by reading it; 0 where the stream has no bound of them."""
    if stream.cut is None or not stream.cut.max_records:
        return 0
    return sum(byte_count.count(chunk, b"\n") for chunk in disk.read_chunks(path))


def _age_s(instant: int, now: int) -> float:
    return max(0.0, (now - instant) / clock.NANOSECONDS)


def _size_of(path: Path) -> int:
    """Bytes of a file, 0 if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
