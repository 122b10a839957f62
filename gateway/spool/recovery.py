"""What an earlier run left behind, put in order: once at every start, under the lock, before anything is received.

    tmp/*                                     never acknowledged: erased
    *.jsonl.open                              its writer died: sound lines are cut, the rest is quarantined
    aggregation/<batch>/ empty                died before the first rename: removed
    aggregation/<batch>/ and uploading/<batch>.*   sealed, sources not yet removed: sources removed
    aggregation/<batch>/ alone                left for the batcher, which aggregates it under the same id
    uploading/<batch>.*                       left for delivery; the store says whether it is there already
    *.upload beside nothing                   removed; beside something, the store aborts that upload
    a sidecar without a body                  never acknowledged: erased
    a body without a sidecar                  quarantined
    any other name                            quarantined

Every step can be repeated: a crash during recovery is followed by a recovery.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from gateway.core import disk
from gateway.core.streams import Stream
from gateway.formats.json_lines import sound_prefix
from gateway.spool import names
from gateway.spool.directories import Claimed
from gateway.spool.left_streams import left_streams
from gateway.spool.sidecar import is_lone, sidecar_of
from gateway.spool.spool import NOT_A_FILE, NOT_OURS, Spool


@dataclass(slots=True)
class Found:
    """What recovery found; the fields of the log line."""

    erased: int = 0
    segments_cut: int = 0
    batches_claimed: int = 0
    batches_sealed: int = 0
    waiting_files: int = 0
    quarantined: int = 0
    # How far the order of the newest spooled name is ahead of the clock, which was stepped back since.
    ahead_s: int = 0


def recover(spool: Spool) -> Found:
    """Put the spool in order and count what waits in it.

    Raises:
        OSError: the disk does not let it; nothing was lost, and the next start begins again.
    """
    found = Found()
    _erase_drafts(spool, found)
    newest = 0
    for stream in spool.streams:
        recovery = _StreamRecovery(spool, stream, found)
        recovery.run()
        newest = max(newest, recovery.newest)
    spool.accounting.left.reset()
    for left in left_streams(spool.directories):
        spool.accounting.is_left(left.files, left.bytes)
        newest = max(newest, left.newest)
    spool.numbers.read()
    spool.timestamps.start_above(newest)
    found.ahead_s = int(spool.timestamps.ahead_s())
    found.waiting_files = spool.accounting.left.files + sum(tally.files for tally in spool.accounting.waiting.values())
    return found


def recover_process(spool: Spool, pid: int) -> Found:
    """Put in order what one process left that died while the others go on; it can be repeated.

    Everything that it has given a name stays where it is: it may have been acknowledged.

    Raises:
        OSError: the disk does not let it; nothing was lost, and it has to be tried again.
    """
    # Another gateway's process may have the same number, in a directory that is not this one's any more.
    spool.ownership.must_hold()
    found = Found()
    _erase_drafts(spool, found, f".{pid}")
    for stream in spool.streams:
        recovery = _StreamRecovery(spool, stream, found)
        recovery.run_for(pid)
        spool.timestamps.start_above(recovery.newest)
    return found


def _erase_drafts(spool: Spool, found: Found, ending: str = "") -> None:
    """Erase what nobody was promised, or of that what has names with such an ending."""
    for name in list(disk.names(spool.directories.tmp)):
        path = spool.directories.tmp / name
        # A directory is of a file browser, say, and in nobody's way.
        if name.endswith(ending) and not disk.is_directory(path):
            disk.remove(path)
            found.erased += 1


class _StreamRecovery:
    def __init__(self, spool: Spool, stream: Stream, found: Found) -> None:
        self._spool = spool
        self._stream = stream
        self._found = found
        self._directory = spool.directories.of(stream)
        self.newest = 0

    def run(self) -> None:
        # What a recovery had counted that failed in the middle is found once more.
        self._spool.accounting.begin_anew(self._stream)
        if self._stream.form.has_segments:
            self._claimed_batches()
            self._sealed_batches()
        else:
            # A body whose removal is not durable would come back, after a power cut, without the sidecar that is erased below.
            disk.sync_directory(self._directory)
        # Before the rest: a look at a directory may or may not show what was renamed in it meanwhile.
        for name in [name for name in disk.names(self._directory) if name.endswith(f".{names.OPEN_SEGMENT}")]:
            self._open_segment(self._directory / name)
        for name in disk.names(self._directory):
            self._entry(name)
        disk.sync_directory(self._directory)

    def run_for(self, pid: int) -> None:
        segments: list[Path] = []
        lone_sidecars: list[Path] = []
        for name in disk.names(self._directory):
            parsed = names.parse_spool_name(name)
            if parsed is None or parsed.pid != pid:
                continue
            self.newest = max(self.newest, parsed.order)
            path = self._directory / name
            if parsed.kind == names.OPEN_SEGMENT:
                segments.append(path)
            elif parsed.kind == names.SIDECAR and is_lone(path):
                lone_sidecars.append(path)
        for path in segments:
            with self._spool.accounting.change():
                # What is torn has no end of a line, and is no record.
                records = self._spool.accounting.records_in(self._stream, path)
                if size := self._open_segment(path):
                    self._spool.accounting.waits(self._stream, size)
                    self._spool.accounting.now_claimable(self._stream, size, records)
        # What was given a name and not synced yet is from now on as good as acknowledged. And of what is being delivered
        # the body goes first: before its sidecar is removed below, its own removal has to be durable.
        disk.sync_directory(self._directory)
        for path in lone_sidecars:
            self._sidecar(path)

    def _entry(self, name: str) -> None:
        path = self._directory / name
        if name in self._stream.form.folders:
            return
        if not disk.is_file(path):
            self._quarantine(path, NOT_A_FILE)
            return
        if name.endswith(f".{names.UPLOAD_NOTE}"):
            self._upload_note(path)
            return
        parsed = names.parse_spool_name(name)
        if parsed is None or not self._belongs(parsed.kind):
            self._quarantine(path, NOT_OURS)
            return
        self.newest = max(self.newest, parsed.order)
        if parsed.kind == names.SIDECAR:
            self._sidecar(path)
        elif parsed.kind == names.BODY and not sidecar_of(path).exists():
            self._quarantine(path, "its sidecar is missing")
        else:
            self._count(path)

    def _belongs(self, kind: str) -> bool:
        is_of_files = kind in (names.BODY, names.SIDECAR)
        return is_of_files == self._stream.form.has_sidecar

    def _count(self, path: Path) -> None:
        size = path.stat().st_size
        self._spool.accounting.waits(self._stream, size)
        if self._stream.cut is not None:
            self._spool.accounting.now_claimable(self._stream, size, self._spool.accounting.records_in(self._stream, path))

    # --- segments -------------------------------------------------------------------------------------------------

    def _open_segment(self, path: Path) -> int:
        """Keep the sound lines, and return their bytes; set the rest aside.

        In that order of safety: copy the rest, then cut it off. A crash after the copy has it copied again at the next start,
        over the same name.
        """
        parsed = names.parse_spool_name(path.name)
        if parsed is None or not self._belongs(parsed.kind) or not disk.is_file(path):
            return 0
        size = path.stat().st_size
        sound = sound_prefix(disk.read_chunks(path))
        if sound.size < size:
            self._quarantine_rest(path, sound.size, size, sound.fault or "")
        self._must_stand_still(path, min(sound.size, size))
        if sound.size == 0:
            disk.remove(path)
            return 0
        # Lines that nobody was promised may be whole for every reader and yet not on the disk. A cut segment is not checked
        # again, so they have to be.
        disk.sync_files([path])
        disk.place(path, path.with_name(path.name.removesuffix(".open")))
        self._found.segments_cut += 1
        return sound.size

    def _quarantine_rest(self, path: Path, start: int, size: int, fault: str) -> None:
        draft = self._spool.new_tmp()
        disk.copy_part(path, draft, start, size - start)
        self._must_stand_still(path, size)
        self._spool.quarantine.take_rest(self._stream.name, path, draft, f"{fault} at byte {start} of {path.name}")
        disk.shorten(path, start)
        self._found.quarantined += 1

    @staticmethod
    def _must_stand_still(path: Path, size: int) -> None:
        if path.stat().st_size != size:
            raise OSError(f"{path} is being written to: another gateway uses this cache_dir, and has to be stopped")

    # --- batches --------------------------------------------------------------------------------------------------

    def _claimed_batches(self) -> None:
        directory = self._spool.directories.aggregation(self._stream)
        for name in list(disk.names(directory)):
            batch = names.parse_batch(name)
            if batch is None or not disk.is_directory(directory / name):
                self._quarantine(directory / name, "not the name of a batch" if batch is None else "not a directory")
                continue
            claimed = Claimed(self._stream, batch, directory / name)
            before = len(claimed.entries())
            sources = self._spool.sources(claimed)
            self._found.quarantined += before - len(sources)
            for path in sources:
                self.newest = max(self.newest, _order(path.name))
            if not sources or self._spool.directories.sealed_as(self._stream, batch) is not None:
                self._remove_sources(claimed, sources)
            else:
                # What a killed run has sealed as it is must not come back here after its delivery.
                disk.sync_directory(claimed.directory)
                self._found.batches_claimed += 1
                for path in sources:
                    self._spool.accounting.waits(self._stream, path.stat().st_size)

    def _remove_sources(self, claimed: Claimed, sources: list[Path]) -> None:
        for path in sources:
            # Counted first, because the removal takes it off the count.
            self._spool.accounting.waits(self._stream, path.stat().st_size)
        self._spool.remove_sources(claimed)

    def _sealed_batches(self) -> None:
        directory = self._spool.directories.uploading(self._stream)
        # A number that a killed run has given in a name must be durable before anything is sent under it.
        disk.sync_directory(directory)
        for name in list(disk.names(directory)):
            path = directory / name
            if not disk.is_file(path):
                self._quarantine(path, NOT_A_FILE)
            elif name.endswith(f".{names.UPLOAD_NOTE}"):
                self._upload_note(path)
            elif names.parse_sealed(name) is None:
                self._quarantine(path, "not the name of a sealed batch")
            else:
                self._found.batches_sealed += 1
                self._spool.accounting.waits(self._stream, path.stat().st_size)

    # --- files ----------------------------------------------------------------------------------------------------

    def _sidecar(self, path: Path) -> None:
        if is_lone(path):
            disk.remove(path)
            self._found.erased += 1

    def _upload_note(self, path: Path) -> None:
        if not os.path.lexists(path.with_name(path.name.removesuffix(f".{names.UPLOAD_NOTE}"))):
            disk.remove(path)
            self._found.erased += 1

    def _quarantine(self, path: Path, reason: str) -> None:
        self._spool.quarantine.take(self._stream.name, path, reason)
        self._found.quarantined += 1


def _order(name: str) -> int:
    parsed = names.parse_spool_name(name)
    return parsed.order if parsed else 0
