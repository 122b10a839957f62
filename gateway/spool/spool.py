"""The steps from one state of received data to the next; the states stand in the docstring of this package."""

from __future__ import annotations

import contextlib
import heapq
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway.core import clock, disk
from gateway.core.clock import Timestamps
from gateway.core.errors import Unanswerable
from gateway.core.shared_counters import SharedCounters
from gateway.core.streams import KeyScheme, Stream
from gateway.spool import directories, names
from gateway.spool.accounting import Accounting
from gateway.spool.ballast import Ballast
from gateway.spool.directories import CLAIMABLE, Claimed, Directories, is_claimable, oldest
from gateway.spool.in_doubt import InDoubt
from gateway.spool.key_numbers import KeyNumbers
from gateway.spool.left_streams import left_batches
from gateway.spool.lock import CacheDirLock
from gateway.spool.quarantine import Quarantine
from gateway.spool.sidecar import Sidecar, sidecar_of
from gateway.telemetry.log import Log
from gateway.telemetry.metrics import Metrics

# Of what nobody but a person, or another program, can have put into the spool.
NOT_A_FILE = "not a regular file"
NOT_OURS = "not a name that this program gives"
# By NFS and FUSE, for files that are removed while somebody has them open; they go by themselves.
HIDDEN_BY_KERNEL = (".nfs", ".fuse_hidden")


class Spool:
    """Received data on disk under one `cache_dir`.

    Methods that change the disk block, raise OSError, and may be called from any thread; one stream's claim, seal and
    retire must not run at the same time as each other on the same files.

    Args:
        root: the `cache_dir`.
        streams: whose data.
        timestamps: make names.
        log, metrics: where what is set aside is reported.
        counters: shared with the other processes of this gateway, if there are any.
        on_commit: called, from any thread, after each commit that wants to be delivered at once.
    """

    def __init__(
        self,
        root: Path,
        streams: tuple[Stream, ...],
        *,
        timestamps: Timestamps,
        log: Log,
        metrics: Metrics,
        counters: SharedCounters | None = None,
        on_commit: Callable[[Stream], object] = lambda _: None,
    ) -> None:
        self.root = root
        self.streams = streams
        self.directories = Directories(root, streams)
        self.lock = CacheDirLock(self.directories)
        self.ownership = self.lock.ownership
        counters = counters or SharedCounters()
        self.timestamps = timestamps
        self._pids = counters.integers("pid", 1)
        self.pid = os.getpid()
        self.accounting = Accounting(self.directories, counters)
        self.quarantine = Quarantine(self.directories.quarantine, timestamps, log, metrics)
        sealed_in = {stream: self.directories.uploading(stream) for stream in streams}
        self.numbers = KeyNumbers(root, sealed_in, self.new_tmp, log, lambda: left_batches(self.directories))
        self.ballast = Ballast(root, lambda: self.ownership.must_hold(), self.new_tmp, log)
        self._in_doubt = {stream.name: InDoubt(counters, f"in_doubt {stream.name}") for stream in streams}
        self._on_commit = on_commit
        # Batches that are one file, moved and not synced yet, and the directories that they come from.
        self._moved: dict[str, Path] = {}

    @property
    def pid(self) -> int:
        """The number in the names that this process gives, which the others find among the counters."""
        return self._pids.mine[0]

    @pid.setter
    def pid(self, pid: int) -> None:
        self._pids.mine[0] = pid

    # --- receive, commit -------------------------------------------------------------------------------------------

    def new_tmp(self) -> Path:
        """A fresh name for something that nobody was promised; what is left of it is erased at the next start."""
        return self.directories.tmp / f"{self.timestamps.next()}.{self.pid}"

    def commit_report(self, stream: Stream, source: Path, received: int, user: str) -> Path:
        """Commit a whole report, or many lines, from a synced file under `tmp/`, and return where it is.

        A crash before the directory is synced leaves the file or not; nobody has been answered yet.
        """
        seen, order = source.stat(), self.timestamps.next()
        target = self.directories.of(stream) / self._name(order, received, names.WHOLE_REPORT, user)
        records = self.accounting.records_in(stream, source)
        with self._unseen(stream, order, lambda: self.now_claimable(stream, seen.st_size, records)):
            disk.place(source, target)
            self._acknowledgeable(stream, target, seen)
        return target

    def _name(self, order: int, received: int, kind: str, text: str) -> str:
        return names.spool_name(order, received, self.pid, kind, text, max_bytes=self.directories.max_name_bytes)

    def now_claimable(self, stream: Stream, size: int, records: int) -> None:
        """Count a file that a claim may take from now on, and wake the batcher."""
        self.accounting.now_claimable(stream, size, records)
        self.committed(stream)

    def commit_file(self, stream: Stream, source: Path, sidecar: Sidecar) -> Path:
        """Commit a synced file under `tmp/` with its sidecar, and return where the file is.

        The sidecar is in place and durable before the body's rename, so a crash between them leaves a lone sidecar
        (never acknowledged, erased at start) and never a body that nobody can name.
        """
        directory, order = self.directories.of(stream), self.timestamps.next()
        body = directory / self._name(order, sidecar.received, names.BODY, sidecar.uri)
        meta = sidecar_of(body)
        draft = self.new_tmp()
        disk.write_file(draft, sidecar.to_json())
        try:
            disk.place(draft, meta)
        finally:
            disk.remove(draft)
        with self._unseen(stream, order, lambda: self.committed(stream)):
            try:
                disk.sync_directory(directory)
                seen = source.stat()
                disk.place(source, body)
                self._acknowledgeable(stream, body, seen)
            except OSError:
                disk.remove(meta)
                raise
        return body

    @contextlib.contextmanager
    def _unseen(self, stream: Stream, order: int, when_it_stays: Callable[[], None]) -> Iterator[None]:
        """Keep a name from being claimed or delivered before it is durable: until then it may have to be taken back.

        It also stays, for all that is known, where nobody can be answered, and then goes the way of the others.
        """
        stays = False
        in_doubt = self._in_doubt[stream.name]
        with self.accounting.change():
            in_doubt.begin(order)
            try:
                yield
                stays = True
            except Unanswerable as error:
                stays = error.stays
                raise
            finally:
                in_doubt.end(order)
                if stays:
                    when_it_stays()
                else:
                    # Others may have had to wait behind it.
                    self.committed(stream)

    def _acknowledgeable(self, stream: Stream, target: Path, placed: os.stat_result) -> None:
        """Sync the directory entry and count it, or take it back: what is answered with an error must not appear later.

        Where it cannot be taken back, or that cannot be made durable, nobody may be answered at all.

        Args:
            stream: whose it is.
            target: its name.
            placed: the file that got the name.
        """
        try:
            disk.sync_directory(target.parent)
        except OSError:
            self._take_back(stream, target, placed.st_size)
            raise
        self._must_stand(target, placed)
        self.accounting.waits(stream, placed.st_size)

    def _must_stand(self, target: Path, placed: os.stat_result) -> None:
        """Nobody may be promised a file that somebody else has taken, or that is in another directory than all the others."""
        try:
            stands = self.ownership.is_there(target.parent) and disk.is_same(target.lstat(), placed)
        except OSError:
            stands = False
        if not stands:
            self.ownership.look()
            raise Unanswerable(
                f"{target} is not where it was put: {self.ownership.fault or 'somebody else has taken it'}", stays=False
            )

    def cut_name_of(self, stream: Stream, path: Path, descriptor: int) -> Path | None:
        """Where an open segment stands that lost its name, if it was cut or claimed: then its lines are on their way."""
        name = path.name.removesuffix(".open")
        places = [self.directories.of(stream), *(claimed.directory for claimed in self.directories.claimed(stream))]
        return next((place / name for place in places if disk.is_at(place / name, descriptor)), None)

    def _take_back(self, stream: Stream, target: Path, size: int) -> None:
        try:
            disk.remove(target)
        except OSError as error:
            # For all that is known it stays.
            self.accounting.waits(stream, size)
            raise Unanswerable(f"{target} was neither synced nor removed: {error}") from error
        try:
            disk.sync_directory(target.parent)
        except OSError as error:
            # After a power cut it may be there again, and is delivered then.
            raise Unanswerable(f"{target} was removed and may come back: {error}", stays=False) from error

    def committed(self, stream: Stream) -> None:
        """Report that there is something new to deliver."""
        self._on_commit(stream)

    # --- claim, seal -----------------------------------------------------------------------------------------------

    def claim(self, stream: Stream, max_bytes: int, host: str) -> Claimed | None:
        """Move the oldest files of one hour, about `max_bytes` of them but at least one, into a batch of their own.

        Both directories are synced before anyone reads the batch: else a power cut could bring a file back to where it
        is claimed again after its lines were delivered. A crash between two renames leaves a smaller batch.
        """
        self.ownership.check()
        hour, picked = self._pick(stream, max_bytes)
        if not picked:
            return None
        batch = names.new_batch(hour, host, os.urandom(16))
        claimed = Claimed(stream, batch, self.directories.aggregation(stream) / str(batch))
        disk.make_directory(claimed.directory)
        for path, size, records in picked:
            with self.accounting.change():
                disk.place(path, claimed.directory / path.name)
                self.accounting.claimed(stream, size, records)
        self.settle(claimed)
        return claimed

    def sources(self, claimed: Claimed) -> list[Path]:
        """The claimed files, oldest first. What else somebody has put among them is set aside, or it would stay for ever."""
        self._quarantine_strangers(claimed)
        return claimed.sources()

    def _quarantine_strangers(self, claimed: Claimed) -> bool:
        """Whether something is left beside the sources that the kernel hides."""
        sources, is_left = claimed.sources(), False
        for path in claimed.entries():
            if path in sources:
                continue
            if path.name.startswith(HIDDEN_BY_KERNEL):
                is_left = True
            else:
                self.quarantine.take(claimed.stream.name, path, NOT_A_FILE if is_claimable(path.name) else NOT_OURS)
        return is_left

    def settle(self, claimed: Claimed) -> None:
        """Make the moves of a claim durable, also of one that an earlier process or a failed call has begun."""
        self.ownership.check()
        disk.sync_directory(claimed.directory)
        disk.sync_directory(self.directories.of(claimed.stream))

    def _is_in_doubt(self, stream: Stream) -> Callable[[names.SpoolName], bool]:
        """Whether a name may still have to be taken back.

        To be asked of a name after it was read: a commit that begins meanwhile says so before it gives its name.
        """
        in_doubt = self._in_doubt[stream.name]

        def is_in_doubt(spooled: names.SpoolName) -> bool:
            return any(
                column[0] == spooled.pid and in_doubt.holds(spooled.order, at) for at, column in enumerate(self._pids.columns)
            )

        return is_in_doubt

    def _pick(self, stream: Stream, max_bytes: int) -> tuple[str, list[tuple[Path, int, int]]]:
        """The hour of the oldest file, and the files of that hour with their sizes and records."""
        picked: list[tuple[Path, int, int]] = []
        first_hour = ""
        room, records_left = max_bytes, stream.cut.max_records if stream.cut else 0
        for name in oldest(self.directories.of(stream), CLAIMABLE, self._is_in_doubt(stream)):
            spooled = names.parse_spool_name(name)
            assert spooled is not None  # others are not picked
            hour = clock.hour_of(spooled.received_ns)
            path = self.directories.of(stream) / name
            if not disk.is_file(path):
                # The next start sets it aside.
                continue
            size = path.stat().st_size
            if picked and (hour != first_hour or size > room):
                break
            records = self.accounting.records_in(stream, path)
            if picked and records > records_left:
                break
            first_hour = hour
            room -= size
            records_left -= records
            picked.append((path, size, records))
        return first_hour, picked

    def seal(self, claimed: Claimed, archive: Path, sources: Sequence[Path] | None = None) -> Path:
        """Put the synced archive of a batch in place for delivery, then remove its sources: these, or all that are there.

        A crash between the two leaves both; the archive is whole, so the sources are removed at the next start.
        """
        self.ownership.check()
        if (sealed := self.directories.sealed_as(claimed.stream, claimed.batch)) is not None:
            raise FileExistsError(f"{claimed.batch} is sealed already, as {sealed.name}")
        size = archive.stat().st_size
        with self.accounting.change():
            target = self._place_sealed(claimed.stream, archive, claimed.batch)
            self.accounting.waits(claimed.stream, size)
        self.remove_sources(claimed, sources)
        return target

    def _place_sealed(self, stream: Stream, source: Path, batch: names.Batch, *, packed: bool = True) -> Path:
        number = self.numbers.next(stream, batch)
        target = self.directories.uploading(stream) / batch.sealed(number, packed=packed)
        try:
            disk.place(source, target)
        except OSError:
            try:
                target.lstat()
            except FileNotFoundError:
                self.numbers.give_back(stream, batch, number)
            raise
        return target

    @staticmethod
    def batch_of(source: Path, host: str) -> names.Batch:
        """A batch for one waiting or claimed file alone."""
        spooled = names.parse_spool_name(source.name)
        assert spooled is not None  # others are not claimed
        return names.new_batch(clock.hour_of(spooled.received_ns), host, os.urandom(16))

    def seal_unpacked(self, stream: Stream, source: Path, batch: names.Batch) -> None:
        """Make one waiting or claimed file a sealed batch by a rename alone.

        For a disk that has no room for an archive, nor perhaps for a directory: what waits can leave all the same. A crash leaves
        the file under one of the two names. It is not delivered before the move is durable: see `deliverable`.
        """
        is_waiting = source.parent == self.directories.of(stream)
        size, records = source.stat().st_size, self.accounting.records_in(stream, source) if is_waiting else 0
        # Before the move: a look at what can be delivered may find the file at once.
        self._moved[str(batch)] = source.parent
        with self.accounting.change():
            try:
                self._place_sealed(stream, source, batch, packed=False)
            except OSError:
                del self._moved[str(batch)]
                raise
            if is_waiting:
                self.accounting.claimed(stream, size, records)
        self._settle_move(stream, str(batch))

    def _settle_move(self, stream: Stream, batch: str) -> None:
        """Make the move of a batch that is one file durable: what came back after its delivery would be delivered twice."""
        source = self._moved.get(batch)
        if source is None:
            return
        disk.sync_directory(self.directories.uploading(stream))
        # A claimed batch is removed, durably, when all of it has left.
        with contextlib.suppress(FileNotFoundError):
            disk.sync_directory(source)
        self._moved.pop(batch, None)

    def oldest_claimable(self, stream: Stream) -> Path | None:
        """The file that a claim would begin with, if there is one."""
        picked = oldest(self.directories.of(stream), CLAIMABLE, self._is_in_doubt(stream))
        return next((path for name in picked if disk.is_file(path := self.directories.of(stream) / name)), None)

    def remove_sources(self, claimed: Claimed, sources: Sequence[Path] | None = None) -> None:
        """Remove the sources of a sealed batch, durably: what came back after the delivery would be delivered twice.

        What came among them meanwhile, as another gateway's claim has it, becomes a batch of its own.
        """
        # Without a durable name of the archive the sources are all there is; an earlier call may have failed just here.
        disk.sync_directory(self.directories.uploading(claimed.stream))
        for path in self.sources(claimed) if sources is None else sources:
            self._remove(claimed.stream, path)
        disk.sync_directory(claimed.directory)
        if claimed.sources():
            batch = names.new_batch(claimed.batch.hour, claimed.batch.host, os.urandom(16))
            disk.place(claimed.directory, claimed.directory.with_name(str(batch)))
        elif self._quarantine_strangers(claimed):
            # What the kernel hides is removed by it; where that does not come to be, it is in nobody's way.
            disk.place(claimed.directory, self.new_tmp())
        else:
            disk.remove_directory(claimed.directory)
        disk.sync_directory(self.directories.aggregation(claimed.stream))

    # --- deliver, retire -------------------------------------------------------------------------------------------

    def deliverable(self, stream: Stream, except_for: set[str]) -> list[Path]:
        """The oldest files that wait for the store, at most `PICKED_FILES` of them.

        Args:
            stream: whose files.
            except_for: the identities (`names.identity_of`) of files that are being delivered or held already.
        """
        self.ownership.check()
        if not stream.form.has_segments:
            is_in_doubt = self._is_in_doubt(stream)
            found = oldest(self.directories.of(stream), (names.BODY,), lambda it: str(it) in except_for or is_in_doubt(it))
            return [path for name in found if disk.is_file(path := self.directories.of(stream) / name)]
        sealed = (
            name
            for name in disk.names(self.directories.uploading(stream))
            if names.parse_sealed(name) and names.identity_of(name) not in except_for
        )
        picked = heapq.nsmallest(directories.PICKED_FILES, sealed)
        # The sealed file of a batch whose sources are still there must not be sent yet: see `remove_sources`. They are
        # looked for after the sealed files: the other way round a batch could be claimed and sealed between the looks.
        blocked = {str(claimed.batch) for claimed in self.directories.claimed(stream)}
        found = [name for name in picked if names.identity_of(name) not in blocked]
        for name in found:
            self._settle_move(stream, names.identity_of(name))
        return [path for name in found if disk.is_file(path := self.directories.uploading(stream) / name)]

    def renumber(self, sealed: Path, number: names.KeyNumber) -> Path:
        """Have a sealed file tried under another number, durably: a retry begins where this attempt stands.

        Args:
            sealed: the file.
            number: a new one of `numbers`, or `BY_ID`.
        """
        self.ownership.check()
        parsed = names.parse_sealed(sealed.name)
        assert parsed is not None  # only sealed files are given here
        target = sealed.with_name(parsed[0].sealed(number, packed=names.is_packed(sealed.name)))
        if number == names.BY_ID:
            # From then on its name does not say any more which number it had, and an attempt may have used it.
            uploading = self.directories.uploading
            self._keep_number(next(stream for stream in self.streams if uploading(stream) == sealed.parent), sealed)
        with self.accounting.change():
            disk.place(sealed, target)
            note = sealed.with_name(f"{sealed.name}.{names.UPLOAD_NOTE}")
            if note.exists():
                # Else nobody would abort that upload.
                disk.replace(note, target.with_name(f"{target.name}.{names.UPLOAD_NOTE}"))
        disk.sync_directory(sealed.parent)
        return target

    def retire(self, stream: Stream, path: Path) -> None:
        """Remove what the store has confirmed. A crash before it is durable has it delivered again, to the same key."""
        self.ownership.check()
        self._keep_number(stream, path)
        self._remove(stream, path)
        disk.sync_directory(path.parent)
        self.numbers.catch_up()
        if stream.form.has_sidecar:
            # After the body, durably: the other way round a crash would leave a body that nobody can name.
            disk.remove(sidecar_of(path))

    def _keep_number(self, stream: Stream, path: Path) -> None:
        parsed = names.parse_sealed(path.name) if stream.keys is KeyScheme.HOURLY else None
        if parsed is not None:
            self.numbers.keep(stream, *parsed)

    def _remove(self, stream: Stream, path: Path) -> None:
        size = path.stat().st_size
        with self.accounting.change():
            disk.remove(path)
            self.accounting.waits_no_more(stream, size)

    # --- what cannot be delivered, what a process left ---------------------------------------------------------------

    def set_aside(self, stream: Stream, path: Path, reason: str) -> None:
        """Quarantine something that waits for the store, with its sidecar if it has one."""
        size = path.stat().st_size
        # An attempt may have used it.
        self._keep_number(stream, path)
        sidecar = sidecar_of(path)
        with self.accounting.change():
            self.quarantine.take(stream.name, path, reason)
            self.accounting.waits_no_more(stream, size)
        if sidecar != path and sidecar.exists():
            # A crash before this leaves a lone sidecar, of a body that a person can still name by its file.
            self.quarantine.take(stream.name, sidecar, f"belongs to {path.name}")

    def forget_process(self, column: int) -> bool:
        """See `Accounting.forget_process`; none of its names is in doubt any more, either."""
        for in_doubt in self._in_doubt.values():
            in_doubt.forget(column)
        return self.accounting.forget_process(column)
