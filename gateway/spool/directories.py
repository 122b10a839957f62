"""The directories of a `cache_dir`, held by one gateway at a time."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from gateway.core import disk
from gateway.core.errors import StartError, is_full
from gateway.core.streams import FORMS, Stream
from gateway.spool import names
from gateway.spool.ballast import BALLAST
from gateway.spool.key_numbers import NUMBERS
from gateway.spool.owner import LOCK, RECORD

# 2: the names of received data hold the time beside their order, and a sealed batch may be one file that is not packed.
# 3: `NUMBERS` says which keys were used whose objects a reader may have removed.
FORMAT_VERSION = 3
_FORMAT_BYTES = 32
# What stands in a `cache_dir` beside received data.
OWN_FILES = frozenset({LOCK, RECORD, "FORMAT", NUMBERS, BALLAST})
# How many of the oldest files one claim or one look for work picks: the memory it needs, whatever the backlog.
PICKED_FILES = 10_000
# What waits for a batch.
CLAIMABLE = (names.CUT_SEGMENT, names.WHOLE_REPORT)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A batch whose sources are in their own directory under `aggregation/`."""

    stream: Stream
    batch: names.Batch
    directory: Path

    def entries(self) -> list[Path]:
        """Whatever is in it, in the order of the names."""
        return [self.directory / name for name in sorted(disk.names(self.directory))]

    def sources(self) -> list[Path]:
        """The claimed files, oldest first: what a claim may have put there, and nothing else."""
        return [path for path in self.entries() if is_claimable(path.name) and disk.is_file(path)]


def is_claimable(name: str) -> bool:
    """Whether a name is one of those that wait for a batch."""
    parsed = names.parse_spool_name(name)
    return parsed is not None and parsed.kind in CLAIMABLE


class Directories:
    """Where everything stands; `spool/spool.py` says what the names mean.

    Args:
        root: the `cache_dir`.
        streams: each has a directory of its name.
    """

    def __init__(self, root: Path, streams: tuple[Stream, ...]) -> None:
        self.root = root
        self.streams = streams
        self.tmp = root / "tmp"
        self.quarantine = root / "quarantine"

    def of(self, stream: Stream) -> Path:
        """Where what is committed waits."""
        return self.root / stream.name

    def aggregation(self, stream: Stream) -> Path:
        """Where claimed batches are, a directory for each."""
        return self.root / stream.name / "aggregation"

    def uploading(self, stream: Stream) -> Path:
        """Where sealed batches wait for the store."""
        return self.root / stream.name / "uploading"

    def claimed(self, stream: Stream) -> list[Claimed]:
        """The batches that were claimed and not sealed, oldest first."""
        found = []
        for name in sorted(disk.names(self.aggregation(stream))):
            batch = names.parse_batch(name)
            if batch is not None and disk.is_directory(self.aggregation(stream) / name):
                found.append(Claimed(stream, batch, self.aggregation(stream) / name))
        return found

    def sealed_as(self, stream: Stream, batch: names.Batch) -> Path | None:
        """The sealed file of a batch, whatever its number, if there is one."""
        for name in disk.names(self.uploading(stream)):
            parsed = names.parse_sealed(name)
            if parsed is not None and parsed[0] == batch:
                return self.uploading(stream) / name
        return None

    # --- FORMAT -----------------------------------------------------------------------------------------------------

    def check_format(self) -> None:
        """StartError if the layout is newer than this version."""
        version = self.format_version()
        if version is not None and version > FORMAT_VERSION:
            raise StartError(
                f"cache_dir {self.root} was written by a newer gateway (format {version}, this one knows {FORMAT_VERSION}): "
                "run that version, or give this one a cache_dir of its own"
            )

    @cached_property
    def max_name_bytes(self) -> int:
        """Of a name in the spool; asked of the directory, which has to be there."""
        return disk.longest_name(self.root)

    def all(self) -> list[Path]:
        """Those that have to stay where they are for as long as this runs."""
        found = [self.root, self.tmp]
        for stream in self.streams:
            found.append(self.of(stream))
            found += [self.of(stream) / folder for folder in stream.form.folders]
        return found

    def is_empty(self) -> bool:
        """Whether nothing waits in it."""
        for stream in self.streams:
            for directory in (self.of(stream), self.aggregation(stream), self.uploading(stream)):
                if any(name not in ("aggregation", "uploading") for name in disk.names(directory)):
                    return False
        return True

    def format_version(self) -> int | None:
        """The version of the layout on disk, None where nothing says it: a new directory, the Go edition's, or a lost file.

        What is no number is as good as lost: the names in the spool say whose they are.
        """
        path = self.root / "FORMAT"
        try:
            text = disk.read_note(path, _FORMAT_BYTES).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StartError(f"{path} cannot be read ({error.strerror or error}): mend that and start again") from error
        return int(text) if text.isdecimal() else None

    def lay_out(self) -> None:
        """Make the directories, then write FORMAT: where it is found, they are there."""
        for directory in (self.tmp, self.quarantine):
            disk.make_directory(directory)
        for stream in self.streams:
            disk.make_directory(self.of(stream))
            for folder in stream.form.folders:
                disk.make_directory(self.of(stream) / folder)
            self._remove_folders_of_other_forms(stream)
        if self.format_version() != FORMAT_VERSION:
            self._write_format()
        # Always: an earlier start may have been killed between a name and its sync. Without FORMAT, after a power cut, the
        # spool would be taken for the Go edition's, and what was acknowledged be put aside.
        disk.sync_directory(self.root)
        # A parent that may not be read is one in which somebody else has made the root.
        with contextlib.suppress(PermissionError):
            disk.sync_directory(self.root.parent)

    def _remove_folders_of_other_forms(self, stream: Stream) -> None:
        """Of a stream whose form was changed when nothing waited: empty, they mean nothing."""
        for folder in {folder for form in FORMS.values() for folder in form.folders} - {*stream.form.folders}:
            path = self.of(stream) / folder
            if disk.is_directory(path) and not any(disk.names(path)):
                disk.remove_directory(path)

    def _write_format(self) -> None:
        """Say which version gives names from now on. What earlier ones gave is read as well, so that nothing else is changed."""
        path, data = self.root / "FORMAT", f"{FORMAT_VERSION}\n".encode("ascii")
        draft = self.tmp / "FORMAT"
        # A start that crashed here has left it.
        disk.remove(draft)
        try:
            disk.write_file(draft, data)
        except OSError as error:
            if not path.exists() or not is_full(error):
                raise
            # On a full disk what waits must be able to leave: a byte is changed in place.
            disk.overwrite(path, data)
            return
        (disk.replace if path.exists() else disk.place)(draft, path)


def oldest(directory: Path, kinds: tuple[str, ...], is_excepted: Callable[[names.SpoolName], bool]) -> list[str]:
    """The `PICKED_FILES` oldest names of these kinds, oldest first, in memory for the picked ones only."""
    return heapq.nsmallest(PICKED_FILES, (str(it) for it in of_kinds(directory, kinds) if not is_excepted(it)))


def of_kinds(directory: Path, kinds: tuple[str, ...]) -> Iterator[names.SpoolName]:
    """The names of these kinds, in any order."""
    for name in disk.names(directory):
        parsed = names.parse_spool_name(name)
        if parsed is not None and parsed.kind in kinds:
            yield parsed
