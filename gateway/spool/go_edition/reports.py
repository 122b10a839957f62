"""The adoption of the Go edition's report files.

    <root>/              <nanoseconds>.<pid>.<user>       flat: one body, unchecked
        aggregation/     the same, being aggregated; aggregate_<nanoseconds>.gz, not finished
        uploading/       aggregate_<nanoseconds>.gz       of each source its bytes and an LF

The steps, of which the next begins when the one before it is done and durable:

1. What bears no name of the Go edition's is quarantined. A name of which no safe name of ours can be made, or which
   stands in both directories, is replaced by a fresh one. From now on each flat file has a target of its own, known
   from its name alone.
2. Archives. Their sources stay in `aggregation/` until they are uploaded, so most of them repeat what is there; some
   hold reports that are found nowhere else. These are copied to a further flat file there, and the archive is put away.
   No source is touched before the last archive is: a start after a crash compares the same things again, and
   finds what was copied already among the sources.
3. Flat files are folded to lines, synced and committed under their own instants; then the source is removed. A crash
   between the two leaves both, with the same content, and only the removal is left to do.
"""

from __future__ import annotations

import filecmp
import gzip
import os
import zlib
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType

from gateway.core import disk
from gateway.spool import names
from gateway.spool.go_edition.documents import NotDocuments, lines_of
from gateway.spool.go_edition.names import (
    STRANGE,
    UNKNOWN_USER,
    Left,
    archive_instant,
    fresh_report_name,
    is_plain_file,
    parse_report_name,
    user_of,
)
from gateway.spool.spool import Spool

# So many files, and not many more bytes, share the syncs of their directories. On a full disk it is also the room that
# the copies need before their sources go.
GROUP_FILES = 1000
GROUP_BYTES = 16 << 20
_READ_BYTES = 1 << 20


def adopt_reports(left: Left) -> None:
    """Empty a directory of reports, and remove it."""
    aggregation, uploading = left.root / "aggregation", left.root / "uploading"
    _sweep(left, left.root, aggregation)
    disk.make_directory(aggregation)
    _sweep(left, aggregation, left.root)
    _put_away_archives(left, uploading, aggregation)
    for directory in (aggregation, left.root):
        while found := list(islice(disk.names(directory), GROUP_FILES)):
            _convert(left, directory, found)
        disk.remove_directory(directory)
        disk.sync_directory(directory.parent)


def _sweep(left: Left, directory: Path, other: Path) -> None:
    """See step 1."""
    inner = (left.root / "aggregation", left.root / "uploading")
    for name in disk.names(directory):
        path = directory / name
        if path in inner and disk.is_directory(path):
            continue
        user = user_of(name)
        if directory != left.root and archive_instant(name):
            left.quarantine(path, "an archive that was not finished; its reports are delivered from the files beside it")
        elif user is None or not is_plain_file(path):
            left.quarantine(path, STRANGE)
        elif parse_report_name(name) is None or os.path.lexists(other / name):
            disk.place(path, directory / fresh_report_name(left.spool, user))
    disk.sync_directory(directory)


# --- archives ----------------------------------------------------------------------------------------------------


def _put_away_archives(left: Left, uploading: Path, aggregation: Path) -> None:
    """See step 2."""
    found = sorted(disk.names(uploading))
    # Takes some 150 bytes of memory for each report among the sources.
    known = _reports_in(aggregation) if found else Counter[bytes]()
    for name in found:
        path = uploading / name
        if archive_instant(name) is None or not is_plain_file(path):
            left.quarantine(path, STRANGE)
        else:
            _put_away(left, path, aggregation, known)
    disk.remove_directory(uploading)
    disk.sync_directory(left.root)


def _reports_in(aggregation: Path) -> Counter[bytes]:
    """How often each report stands in the sources; those of a file that is not readable as a whole do not count."""
    known: Counter[bytes] = Counter()
    for name in disk.names(aggregation):
        try:
            known.update(list(lines_of(disk.read_chunks(aggregation / name), len)))
        except NotDocuments:
            continue
    return known


def _put_away(left: Left, archive: Path, aggregation: Path, known: Counter[bytes]) -> None:
    """Copy what is found nowhere else to where it will be converted, durably; only then part with the archive.

    What was copied is known from then on, because the archives of two attempts hold the same reports.
    """
    with _Draft(left.spool) as draft:
        try:
            covered, missing = _compare(archive, known, draft)
        except NotDocuments as fault:
            disk.remove(draft.path)
            left.quarantine(archive, f"{fault}; what the files beside it hold too is delivered from them, nothing else of it")
            return
    if missing:
        disk.sync_files([draft.path])
        disk.place(draft.path, aggregation / _name_of_copy(left.spool, archive, aggregation))
        disk.sync_directory(aggregation)
        known.update(missing)
    else:
        disk.remove(draft.path)
    if covered:
        left.quarantine(archive, "its reports are delivered from the files beside it")
    else:
        disk.remove(archive)
        disk.sync_directory(archive.parent)


def _compare(archive: Path, known: Counter[bytes], draft: _Draft) -> tuple[int, Counter[bytes]]:
    """Write what is not known; give the number of reports that are, and what was written.

    A report that stands twice in one archive was sent twice, and is known only if it is known twice.
    """
    seen: Counter[bytes] = Counter()
    missing: Counter[bytes] = Counter()
    for digest in lines_of(_unzipped(archive), draft.write):
        seen[digest] += 1
        if seen[digest] <= known[digest]:
            draft.drop_line()
        else:
            missing[digest] += 1
            draft.keep_line()
    return seen.total() - missing.total(), missing


def _unzipped(archive: Path) -> Iterator[bytes]:
    try:
        with gzip.open(archive) as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise NotDocuments(f"not a whole gzip file: {error}") from error


def _name_of_copy(spool: Spool, archive: Path, aggregation: Path) -> str:
    name = f"{archive_instant(archive.name)}.{spool.pid}.{UNKNOWN_USER}"
    if parse_report_name(name) is None or os.path.lexists(aggregation / name):
        return fresh_report_name(spool, UNKNOWN_USER)
    return name


# --- flat files --------------------------------------------------------------------------------------------------


def _convert(left: Left, directory: Path, found: list[str]) -> None:
    """See step 3."""
    group: list[tuple[Path, _Draft]] = []
    size = 0
    for name in found:
        source = directory / name
        with _Draft(left.spool) as draft:
            try:
                for _ in lines_of(disk.read_chunks(source), draft.write):
                    draft.keep_line()
            except NotDocuments as fault:
                disk.remove(draft.path)
                left.quarantine(source, str(fault))
                continue
        group.append((source, draft))
        size += draft.size
        if size >= GROUP_BYTES:
            _commit(left, directory, group)
            group, size = [], 0
    _commit(left, directory, group)


def _commit(left: Left, directory: Path, group: list[tuple[Path, _Draft]]) -> None:
    disk.sync_files([draft.path for _, draft in group])
    done = [source for source, draft in group if _place(left, source, draft)]
    disk.sync_directory(left.target)
    for source in done:
        disk.remove(source)
    disk.sync_directory(directory)


def _place(left: Left, source: Path, draft: _Draft) -> bool:
    """Give a file's lines their place; false if something else has it, so that it is tried again under a fresh name."""
    parsed = parse_report_name(source.name)
    assert parsed is not None  # since the sweep
    at, longest = parsed.timestamp, left.spool.directories.max_name_bytes
    target = left.target / names.spool_name(at, at, parsed.pid, names.WHOLE_REPORT, parsed.user, max_bytes=longest)
    if not os.path.lexists(target):
        disk.place(draft.path, target)
    else:
        same = filecmp.cmp(draft.path, target, shallow=False)
        disk.remove(draft.path)
        if not same:
            disk.place(source, source.with_name(fresh_report_name(left.spool, parsed.user)))
            return False
        # It was committed already, before a crash prevented the removal of the source.
    left.adopted.reports += draft.lines
    return True


class _Draft:
    """A file under `tmp/` that is written line by line, and from which the last line can be dropped."""

    def __init__(self, spool: Spool) -> None:
        self.path = spool.new_tmp()
        self.lines = 0
        self.size = 0
        self._kept = 0
        self._descriptor = disk.create(self.path)

    def write(self, data: bytes) -> None:
        self.size += disk.write_all(self._descriptor, [data])

    def keep_line(self) -> None:
        self.lines += 1
        self._kept = self.size

    def drop_line(self) -> None:
        disk.truncate_unsynced(self._descriptor, self._kept)
        self.size = self._kept

    def __enter__(self) -> _Draft:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        disk.close(self._descriptor)
