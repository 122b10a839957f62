"""The spool: received data on disk, its states, and the steps from one to the next.

    cache_dir/
        .lock   FORMAT   tmp/   quarantine/
        <report stream>/
            <timestamp>.<pid>.jsonl.open      written by a journal
            <timestamp>.<pid>.jsonl           a cut segment
            <timestamp>.<pid>.<user>.json     a whole large report
            aggregation/<batch>/              claimed
            uploading/<batch>.<n>.jsonl.gz    sealed
        <file stream>/
            <timestamp>.<pid>.<uri>.meta      the sidecar, in place first
            <timestamp>.<pid>.<uri>.body      the file; its rename is the commit

    receive ──commit──▶ waiting ──claim──▶ aggregation ──seal──▶ uploading ──deliver, retire──▶ (gone)
                                                                     ▲
    receive ──commit──▶ waiting body + sidecar ───────deliver, retire┴────────────────────────▶ (gone)

    anything that cannot be read ──quarantine──▶ quarantine/

The state of a thing is its name alone, so a crash on any line leaves a state that `recovery.py` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import heapq
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from gateway import disk, names
from gateway.board import Board
from gateway.errors import GatewayError, SpoolBroken, SpoolFull, StartError, Unanswerable
from gateway.log import Log
from gateway.metrics import Metrics, Waiting
from gateway.streams import Kind, Stream
from gateway.tallies import Tally, Unsettled
from gateway.timestamps import Timestamps

FORMAT_VERSION = 1
# How many of the oldest files one claim or one look for work picks: the memory it needs, whatever the backlog.
PICKED_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is known of a received file beside its bytes.

    Attributes:
        id: 32 hexadecimal digits, given at receipt, by which the store knows the object again.
        user: as sent; bytes that are not UTF-8 are surrogate escapes.
        uri: likewise.
        type: media type.
        received: the instant of the commit in nanoseconds since the epoch.
        size: bytes, decoded.
        sha256: hexadecimal, of the decoded bytes.
    """

    id: str
    user: str
    uri: str
    type: str
    received: int
    size: int
    sha256: str

    def to_json(self) -> bytes:
        """One JSON object in one line of ASCII."""
        return json.dumps(asdict(self)).encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Sidecar:
        """Undo `to_json`; ValueError if it is not one."""
        fields = json.loads(data)
        try:
            return cls(**{name: kind(fields[name]) for name, kind in _SIDECAR_FIELDS.items()})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a sidecar: {error}") from error


_SIDECAR_FIELDS: dict[str, type] = {
    "id": str,
    "user": str,
    "uri": str,
    "type": str,
    "received": int,
    "size": int,
    "sha256": str,
}


@dataclass(frozen=True, slots=True)
class Claimed:
    """A batch whose sources are in their own directory under `aggregation/`."""

    stream: Stream
    batch: names.Batch
    directory: Path

    def sources(self) -> list[Path]:
        """The claimed files, oldest first."""
        return [self.directory / name for name in sorted(disk.names(self.directory))]


class Cuttable(Protocol):
    """A writer of segments, which can be asked to end the one it is writing."""

    async def cut(self) -> None:
        """Return once everything acknowledged so far stands in cut segments."""


class Spool:
    """Received data on disk under one `cache_dir`.

    Methods that change the disk block, raise OSError, and may be called from any thread; one stream's claim, seal and
    retire must not run at the same time as each other on the same files.
    """

    def __init__(
        self,
        root: Path,
        streams: tuple[Stream, ...],
        *,
        timestamps: Timestamps,
        log: Log,
        metrics: Metrics,
        board: Board | None = None,
    ) -> None:
        board = board or Board()
        self.root = root
        self.streams = streams
        self.timestamps = timestamps
        self.log = log
        self.metrics = metrics
        self._pids = board.integers("pid", 1)
        self.pid = os.getpid()
        self.tallies = {stream.name: Tally(board, f"waiting {stream.name}") for stream in streams}
        # Of these, what a claim would find.
        self.claimable = {stream.name: Tally(board, f"claimable {stream.name}") for stream in streams}
        # Segments that are being written, which are not among the others until they are cut.
        self.open = {stream.name: Tally(board, f"open {stream.name}") for stream in streams}
        # Bytes under `tmp/` of bodies that are being received.
        self.drafted = Tally(board, "drafted")
        self.writers: dict[str, Cuttable] = {}
        self._unsettled = {stream.name: Unsettled(board, f"unsettled {stream.name}") for stream in streams}
        # How many changes of what waits were begun, and how many are done and counted.
        self._changes = board.integers("changes", 2)
        self._changes_lock = threading.Lock()
        self._correcting = threading.Lock()
        self.tmp = root / "tmp"
        self.quarantine_directory = root / "quarantine"
        self._listeners: dict[str, Callable[[], None]] = {}
        self._lock: disk.Lock | None = None

    @property
    def pid(self) -> int:
        """The number in the names that this process gives, which the others find on the board."""
        return self._pids.mine[0]

    @pid.setter
    def pid(self, pid: int) -> None:
        self._pids.mine[0] = pid

    # --- layout ---------------------------------------------------------------------------------------------------

    def directory(self, stream: Stream) -> Path:
        """Where what is committed waits."""
        return self.root / stream.name

    def aggregation(self, stream: Stream) -> Path:
        """Where claimed batches are, a directory for each."""
        return self.root / stream.name / "aggregation"

    def uploading(self, stream: Stream) -> Path:
        """Where sealed batches wait for the store."""
        return self.root / stream.name / "uploading"

    def acquire(self) -> None:
        """Take the spool for this process; StartError if it cannot be had, is newer than this version or not writable."""
        try:
            disk.make_directory(self.root)
            self._lock = disk.Lock(self.root / ".lock")
        except OSError as error:
            raise StartError(
                f"cache_dir {self.root} cannot be used ({error.strerror or error}): "
                "give a directory that this user may write, with cache_dir or LIGHTFILE6_CACHE_DIR"
            ) from error
        try:
            version = self.format_version()
        except StartError:
            self.release()
            raise
        if version is not None and version > FORMAT_VERSION:
            self.release()
            raise StartError(
                f"cache_dir {self.root} was written by a newer gateway (format {version}, this one knows {FORMAT_VERSION}): "
                "run that version, or give this one a cache_dir of its own"
            )

    def format_version(self) -> int | None:
        """The version of the layout on disk, None where there is none yet (a new directory, or the Go edition's)."""
        path = self.root / "FORMAT"
        try:
            text = path.read_text("ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartError(f"{path} cannot be read ({error.strerror or error}): mend that and start again") from error
        if not text.isdigit():
            raise StartError(f"{path} does not hold a version number: restore it ({FORMAT_VERSION} is this version's)")
        return int(text)

    def lay_out(self) -> None:
        """Make the directories, then write FORMAT: whoever finds it may rely on them."""
        for directory in (self.tmp, self.quarantine_directory):
            disk.make_directory(directory)
        for stream in self.streams:
            disk.make_directory(self.directory(stream))
            if stream.kind is Kind.REPORTS:
                disk.make_directory(self.aggregation(stream))
                disk.make_directory(self.uploading(stream))
        if self.format_version() is None:
            draft = self.new_tmp()
            # A start that crashed here, at the same instant of a coarse clock, may have left one of this name.
            disk.remove(draft)
            disk.write_file(draft, f"{FORMAT_VERSION}\n".encode("ascii"))
            disk.place(draft, self.root / "FORMAT")
        # Always: an earlier start may have been killed between a name and its sync. Without FORMAT, after a power cut, the
        # spool would be taken for the Go edition's, and what was acknowledged be put aside.
        disk.sync_directory(self.root)
        # A parent that may not be read is one in which somebody else has made the root.
        with contextlib.suppress(PermissionError):
            disk.sync_directory(self.root.parent)

    @property
    def lock_descriptor(self) -> int:
        """Of the lock that this process holds: who inherits it holds the lock as well."""
        assert self._lock is not None  # asked of a spool that was acquired
        return self._lock.descriptor

    def release(self) -> None:
        """Give the spool up to another process."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # --- receive, commit -------------------------------------------------------------------------------------------

    def new_tmp(self) -> Path:
        """A fresh name for something that nobody was promised; what is left of it is erased at the next start."""
        return self.tmp / f"{self.timestamps.next()}.{self.pid}"

    def commit_report(self, stream: Stream, source: Path, instant: int, user: str) -> None:
        """Commit a whole report, or many lines, from a synced file under `tmp/`.

        A crash before the directory is synced leaves the file or not; nobody has been answered yet.
        """
        size = source.stat().st_size
        target = self.directory(stream) / names.spool_name(instant, self.pid, names.WHOLE_REPORT, user)
        with self._unseen(stream, instant, lambda: self.now_claimable(stream, size)):
            disk.place(source, target)
            self._acknowledgeable(stream, target, size)

    def now_claimable(self, stream: Stream, size: int) -> None:
        """Count a file that a claim may take from now on, and tell whoever claims."""
        self.claimable[stream.name].add(1, size)
        self.committed(stream)

    def commit_file(self, stream: Stream, source: Path, sidecar: Sidecar) -> None:
        """Commit a synced file under `tmp/` with its sidecar.

        The sidecar is in place and durable before the body's rename, so a crash between them leaves a lone sidecar
        (never acknowledged, erased at start) and never a body that nobody can name.
        """
        directory = self.directory(stream)
        body = directory / names.spool_name(sidecar.received, self.pid, names.BODY, sidecar.uri)
        meta = body.with_suffix(f".{names.SIDECAR}")
        draft = self.new_tmp()
        disk.write_file(draft, sidecar.to_json())
        try:
            disk.place(draft, meta)
        finally:
            disk.remove(draft)
        with self._unseen(stream, sidecar.received, lambda: self.committed(stream)):
            try:
                disk.sync_directory(directory)
                disk.place(source, body)
                self._acknowledgeable(stream, body, sidecar.size)
            except OSError:
                disk.remove(meta)
                raise

    @contextlib.contextmanager
    def _unseen(self, stream: Stream, instant: int, when_it_stays: Callable[[], None]) -> Iterator[None]:
        """Keep a name from being claimed or delivered before it is durable: until then it may have to be taken back.

        It also stays, for all that is known, where nobody can be answered, and then goes the way of the others.
        """
        stays = False
        unsettled = self._unsettled[stream.name]
        with self.change():
            unsettled.begin(instant)
            try:
                yield
                stays = True
            except Unanswerable:
                stays = True
                raise
            finally:
                unsettled.end(instant)
                if stays:
                    when_it_stays()
                else:
                    # Others may have had to wait behind it.
                    self.committed(stream)

    @contextlib.contextmanager
    def change(self) -> Iterator[None]:
        """A change of what waits, and its count: who counts anew waits until none is under way."""
        with self._changes_lock:
            self._changes.mine[0] += 1
        try:
            yield
        finally:
            with self._changes_lock:
                self._changes.mine[1] += 1

    def _acknowledgeable(self, stream: Stream, target: Path, size: int) -> None:
        """Sync the directory entry and count it, or take it back: what is answered with an error must not appear later.

        Where it cannot be taken back either it is counted all the same, and nobody may be answered at all.
        """
        try:
            disk.sync_directory(target.parent)
        except OSError:
            try:
                disk.remove(target)
            except OSError as error:
                self.tallies[stream.name].add(1, size)
                raise Unanswerable(f"{target} was neither synced nor removed: {error}") from error
            raise
        self.tallies[stream.name].add(1, size)

    def committed(self, stream: Stream) -> None:
        """Tell whoever delivers the stream that there is something new."""
        listener = self._listeners.get(stream.name)
        if listener is not None:
            listener()

    def on_commit(self, stream: Stream, listener: Callable[[], None]) -> None:
        """Have `listener` called, from any thread, after each commit that wants to be delivered at once."""
        self._listeners[stream.name] = listener

    async def cut(self, stream: Stream) -> None:
        """Have the writer of the stream end its segment, so that it can be claimed."""
        writer = self.writers.get(stream.name)
        if writer is not None:
            await writer.cut()

    # --- claim, seal -----------------------------------------------------------------------------------------------

    def claim(self, stream: Stream, max_bytes: int, host: str) -> Claimed | None:
        """Move the oldest files of one hour, about `max_bytes` of them but at least one, into a batch of their own.

        Both directories are synced before anyone reads the batch: else a power cut could bring a file back to where it
        is claimed again after its lines were delivered. A crash between two renames leaves a smaller batch.
        """
        hour, picked = self._pick(stream, max_bytes)
        if not picked:
            return None
        batch = names.new_batch(hour, host, os.urandom(16))
        claimed = Claimed(stream, batch, self.aggregation(stream) / str(batch))
        disk.make_directory(claimed.directory)
        for path, size in picked:
            with self.change():
                disk.place(path, claimed.directory / path.name)
                self.claimable[stream.name].add(-1, -size)
        self.settle(claimed)
        return claimed

    def settle(self, claimed: Claimed) -> None:
        """Make the moves of a claim durable, also of one that an earlier process or a failed call has begun."""
        disk.sync_directory(claimed.directory)
        disk.sync_directory(self.directory(claimed.stream))

    def recount_claimable(self, stream: Stream) -> None:
        """Count anew what a claim would find, where a claim found nothing: a person may have taken files away."""
        self._correct([self.claimable[stream.name]], lambda: [self._count(stream, (names.CUT_SEGMENT, names.WHOLE_REPORT))])

    def _count(self, stream: Stream, kinds: tuple[str, ...]) -> tuple[int, int]:
        """How many files of these kinds wait in the directory of a stream, and their bytes."""
        files = size = 0
        for spooled in _of_kinds(self.directory(stream), kinds):
            files += 1
            size += _size_of(self.directory(stream) / str(spooled))
        return files, size

    def _is_unsettled(self, stream: Stream) -> Callable[[names.SpoolName], bool]:
        """Whether a name may still have to be taken back.

        To be asked of a name after it was read: a commit that begins meanwhile says so before it gives its name.
        """
        unsettled = self._unsettled[stream.name]

        def is_unsettled(spooled: names.SpoolName) -> bool:
            return any(
                column[0] == spooled.pid and unsettled.holds(spooled.timestamp, at)
                for at, column in enumerate(self._pids.columns)
            )

        return is_unsettled

    def _pick(self, stream: Stream, max_bytes: int) -> tuple[str, list[tuple[Path, int]]]:
        """The hour of the oldest file, and the files of that hour with their sizes."""
        picked: list[tuple[Path, int]] = []
        first_hour = ""
        room = max_bytes
        for name in oldest(self.directory(stream), (names.CUT_SEGMENT, names.WHOLE_REPORT), self._is_unsettled(stream)):
            hour = names.hour_of(int(name.partition(".")[0]))
            path = self.directory(stream) / name
            size = path.stat().st_size
            if picked and (hour != first_hour or size > room):
                break
            first_hour = hour
            room -= size
            picked.append((path, size))
        return first_hour, picked

    def claimed(self, stream: Stream) -> list[Claimed]:
        """The batches that were claimed and not sealed, oldest first."""
        found = []
        for name in sorted(disk.names(self.aggregation(stream))):
            batch = names.parse_batch(name)
            if batch is not None:
                found.append(Claimed(stream, batch, self.aggregation(stream) / name))
        return found

    def sealed_as(self, stream: Stream, batch: names.Batch) -> Path | None:
        """The sealed file of a batch, whatever its number, if there is one."""
        for name in disk.names(self.uploading(stream)):
            parsed = names.parse_sealed(name)
            if parsed is not None and parsed[0] == batch:
                return self.uploading(stream) / name
        return None

    def seal(self, claimed: Claimed, archive: Path) -> Path:
        """Put the synced archive of a batch in place for delivery, then remove its sources.

        A crash between the two leaves both; the archive is whole, so the sources are removed at the next start.
        """
        directory = self.uploading(claimed.stream)
        target = directory / claimed.batch.sealed(1)
        size = archive.stat().st_size
        with self.change():
            disk.place(archive, target)
            self.tallies[claimed.stream.name].add(1, size)
        self.remove_sources(claimed)
        return target

    def remove_sources(self, claimed: Claimed) -> None:
        """Remove the sources of a sealed batch, durably: what came back after the delivery would be delivered twice."""
        # Without a durable name of the archive the sources are all there is; an earlier call may have failed just here.
        disk.sync_directory(self.uploading(claimed.stream))
        for path in claimed.sources():
            self._remove(claimed.stream, path)
        disk.sync_directory(claimed.directory)
        disk.remove_directory(claimed.directory)
        disk.sync_directory(self.aggregation(claimed.stream))

    # --- deliver, retire -------------------------------------------------------------------------------------------

    def deliverable(self, stream: Stream, except_for: set[str]) -> list[Path]:
        """The oldest files that wait for the store, at most `PICKED_FILES` of them.

        Args:
            stream: whose files.
            except_for: the identities (`names.identity_of`) of files that are being delivered or held already.
        """
        if stream.kind is Kind.FILES:
            is_unsettled = self._is_unsettled(stream)
            found = oldest(self.directory(stream), (names.BODY,), lambda it: str(it) in except_for or is_unsettled(it))
            return [self.directory(stream) / name for name in found]
        sealed = (
            name
            for name in disk.names(self.uploading(stream))
            if names.parse_sealed(name) and names.identity_of(name) not in except_for
        )
        picked = heapq.nsmallest(PICKED_FILES, sealed)
        # The sealed file of a batch whose sources are still there must not be sent yet: see `remove_sources`. They are
        # looked for after the sealed files: the other way round a batch could be claimed and sealed between the looks.
        blocked = {str(claimed.batch) for claimed in self.claimed(stream)}
        return [self.uploading(stream) / name for name in picked if names.identity_of(name) not in blocked]

    def renumber(self, sealed: Path, number: int) -> Path:
        """Have a sealed file tried under another number, durably: a retry begins where this attempt stands."""
        parsed = names.parse_sealed(sealed.name)
        assert parsed is not None  # only sealed files are given here
        target = sealed.with_name(parsed[0].sealed(number))
        with self.change():
            disk.place(sealed, target)
        disk.sync_directory(sealed.parent)
        return target

    def retire(self, stream: Stream, path: Path) -> None:
        """Remove what the store has confirmed. A crash before it is durable has it delivered again, to the same key."""
        self._remove(stream, path)
        disk.sync_directory(path.parent)
        if stream.kind is Kind.FILES:
            # After the body, durably: the other way round a crash would leave a body that nobody can name.
            disk.remove(path.with_suffix(f".{names.SIDECAR}"))

    def _remove(self, stream: Stream, path: Path) -> None:
        size = path.stat().st_size
        with self.change():
            disk.remove(path)
            self.tallies[stream.name].add(-1, -size)

    def read_sidecar(self, body: Path) -> Sidecar:
        """Read the sidecar of a body; ValueError or FileNotFoundError if there is none that can be read."""
        return Sidecar.from_json(body.with_suffix(f".{names.SIDECAR}").read_bytes())

    # --- quarantine ------------------------------------------------------------------------------------------------

    def quarantine(self, stream_name: str, path: Path, reason: str) -> None:
        """Set a file, or a directory, aside for a person, and say so."""
        target = self.quarantine_target(stream_name, path.name)
        disk.place(path, target)
        disk.sync_directory(self.quarantine_directory)
        disk.sync_directory(path.parent)
        self.told_quarantined(stream_name, target, reason)

    def set_aside(self, stream: Stream, path: Path, reason: str) -> None:
        """Quarantine something that waits for the store, with its sidecar if it has one."""
        size = path.stat().st_size
        sidecar = path.with_suffix(f".{names.SIDECAR}")
        with self.change():
            self.quarantine(stream.name, path, reason)
            self.tallies[stream.name].add(-1, -size)
        if sidecar != path and sidecar.exists():
            # A crash before this leaves a lone sidecar, of a body that a person can still name by its file.
            self.quarantine(stream.name, sidecar, f"belongs to {path.name}")

    def quarantine_target(self, stream_name: str, name: str) -> Path:
        """A free name in the quarantine that still says what it was."""
        whole = f"{stream_name}.{name}"
        target = self.quarantine_directory / names.cut_bytes(whole, names.MAX_NAME_BYTES)
        if not os.path.lexists(target):
            return target
        suffix = f".{self.timestamps.next()}"
        return self.quarantine_directory / (names.cut_bytes(whole, names.MAX_NAME_BYTES - len(suffix)) + suffix)

    def told_quarantined(self, stream_name: str, target: Path, reason: str) -> None:
        """Log and count one quarantined thing."""
        self.metrics.quarantined.labels(stream_name).inc()
        self.log.warning("quarantined", stream=stream_name, path=str(target), reason=reason)

    # --- how full --------------------------------------------------------------------------------------------------

    def used_bytes(self) -> int:
        """Bytes of received data in the spool."""
        return self.drafted.bytes + sum(tally.bytes for tally in (*self.tallies.values(), *self.open.values()))

    def waiting_files(self) -> int:
        """How many files wait to be delivered."""
        return sum(tally.files for tally in (*self.tallies.values(), *self.open.values()))

    def waiting(self) -> Iterator[Waiting]:
        """What waits of each stream."""
        now = time.time_ns()
        for stream in self.streams:
            waiting, writing = self.tallies[stream.name], self.open[stream.name]
            oldest_at = self.oldest_instant(stream)
            age_s = 0.0 if oldest_at is None else max(0.0, (now - oldest_at) / names.NANOSECONDS)
            yield Waiting(stream.name, waiting.files + writing.files, waiting.bytes + writing.bytes, age_s)

    def forget_process(self, column: int) -> bool:
        """A process that shared the board has died, and what it left in the spool was put in order.

        Returns whether it died between a change and its count, so that all has to be counted anew.
        """
        begun, done = self._changes.columns[column]
        for stream in self.streams:
            self.open[stream.name].forget(column)
            self._unsettled[stream.name].forget(column)
        self.drafted.forget(column)
        self._changes.columns[column][1] = begun
        return begun != done

    def recount(self) -> bool:
        """Count anew all that waits, because a process died between a change and its count.

        False if something changed meanwhile: then nothing was corrected, and it has to be tried again.
        """
        tallies = [tally for stream in self.streams for tally in (self.tallies[stream.name], self.claimable[stream.name])]
        return self._correct(tallies, lambda: [count for stream in self.streams for count in self._count_all(stream)])

    def _correct(self, tallies: list[Tally], count: Callable[[], list[tuple[int, int]]]) -> bool:
        """Have tallies say what is counted now; False, and nothing done, if something changed meanwhile."""
        with self._correcting:
            changes = [tuple(column) for column in self._changes.columns]
            told = [(tally.files, tally.bytes) for tally in tallies]
            found = count()
            if changes != [tuple(column) for column in self._changes.columns] or any(begun != done for begun, done in changes):
                return False
            # By how much it was wrong, so that what is counted from now on stays counted.
            for tally, (files, size), (true_files, true_size) in zip(tallies, told, found, strict=True):
                tally.add(true_files - files, true_size - size)
            return True

    def _count_all(self, stream: Stream) -> tuple[tuple[int, int], tuple[int, int]]:
        """Files and bytes of all that waits of a stream, and of what a claim would find; open segments are not among it."""
        if stream.kind is Kind.FILES:
            return self._count(stream, (names.BODY,)), (0, 0)
        files, size = claimable = self._count(stream, (names.CUT_SEGMENT, names.WHOLE_REPORT))
        for name in disk.names(self.uploading(stream)):
            if names.parse_sealed(name):
                files += 1
                size += _size_of(self.uploading(stream) / name)
        for path in (path for claimed in self.claimed(stream) for path in claimed.sources()):
            files += 1
            size += _size_of(path)
        return (files, size), claimable

    def oldest_instant(self, stream: Stream) -> int | None:
        """When the oldest thing that waits was received, in nanoseconds; to the hour for claimed and sealed batches."""
        return min(self._instants(stream), default=None)

    def _instants(self, stream: Stream) -> Iterator[int]:
        for name in disk.names(self.directory(stream)):
            spooled = names.parse_spool_name(name)
            if spooled is not None:
                yield spooled.timestamp
        for name in disk.names(self.aggregation(stream)):
            batch = names.parse_batch(name)
            if batch is not None:
                yield names.instant_of(batch.hour)
        for name in disk.names(self.uploading(stream)):
            sealed = names.parse_sealed(name)
            if sealed is not None:
                yield names.instant_of(sealed[0].hour)


def refusal(error: OSError) -> GatewayError:
    """What a failed write to the spool means to the client."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return SpoolFull("the disk has no room")
    return SpoolBroken(f"the disk did not keep it ({error.strerror or error})")


def oldest(directory: Path, kinds: tuple[str, ...], is_excepted: Callable[[names.SpoolName], bool]) -> list[str]:
    """The `PICKED_FILES` oldest names of these kinds, oldest first, in memory for the picked ones only."""
    return heapq.nsmallest(PICKED_FILES, (str(it) for it in _of_kinds(directory, kinds) if not is_excepted(it)))


def _of_kinds(directory: Path, kinds: tuple[str, ...]) -> Iterator[names.SpoolName]:
    for name in disk.names(directory):
        parsed = names.parse_spool_name(name)
        if parsed is not None and parsed.kind in kinds:
            yield parsed


def _size_of(path: Path) -> int:
    """Bytes of a file, 0 if it is gone."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def from_any_thread(loop: asyncio.AbstractEventLoop, wake: Callable[[], object]) -> None:
    """Call a listener in the thread of an event loop."""
    try:
        loop.call_soon_threadsafe(wake)
    except RuntimeError:
        # The loop has ended: the next start finds what was committed.
        return
