"""From what was done to a disk up to a moment, the states that a power cut at that moment may leave it in.

What the last completed sync of a file or directory covers is there. Each later change may be there or not:

- a write whole, in part, as zeros of its length, or not at all; a truncation done or not;
- a name made, moved or removed, or not. A rename is one thing, so the file has its old name or the new one, and it is
  there for good once either directory is synced. The sync of a file says nothing of its name.

Nothing is promised of the order between changes, not even within one directory. Of all combinations the extremes are
taken, every prefix, each change alone kept, lost or spoiled, and some mixes by lot.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import PurePosixPath

ROOT = "."
MIXES_BY_LOT = 6
# Of many changes that wait for a sync, so many of the first and of the last are treated one by one.
FIRST_ALONE, LAST_ALONE = 2, 8
# Nobody is told apart by which pieces of a large draft are there, and laying them out takes long.
MOST_BYTES_ALONE = 1 << 20
# So many large contents are kept with their digests.
MOST_KNOWN = 8

Place = tuple[int, str]
State = dict[str, bytes | None]
"""Paths relative to the root, with the bytes of a file or None for a directory; a directory comes before what is in it."""


class Do(Enum):
    """What a step does to the disk, or tells of it."""

    MAKE_FILE = "make"
    MAKE_DIRECTORY = "make directory"
    WRITE = "write"
    TRUNCATE = "truncate"
    RENAME = "rename"
    LINK = "link"
    REMOVE = "remove"
    REMOVE_DIRECTORY = "remove directory"
    BEGIN_SYNC = "begin of sync"
    END_SYNC = "end of sync"
    LISTEN = "listen"
    """From here on requests are accepted."""
    ANSWER = "answer"
    """A request is being told that it is safe; `path` is its id."""


@dataclass(frozen=True)
class Step:
    """One thing that the program did, in the order in which it was done.

    Attributes:
        path: of the file or directory, relative to the root.
        target: the second path of a rename or a link.
        data: what was written.
        offset: where; at the end if None. Of a truncation: the new size.
        number: of a sync, the same at its begin and its end; other syncs may run meanwhile.
        at_ns: the instant when it was done, in nanoseconds since the epoch.
    """

    do: Do
    path: str = ROOT
    target: str = ""
    data: bytes = b""
    offset: int | None = None
    number: int = 0
    at_ns: int = 0

    def __str__(self) -> str:
        return " ".join(part for part in (self.do.value, self.path, self.target) if part)


class Fate(Enum):
    """What became of a change that was not synced."""

    LOST = "lost"
    KEPT = "kept"
    HALF = "half"
    """The first half of what was written."""
    CLIPPED = "clipped"
    """All of it but the last byte."""
    ZEROS = "zeros"
    """The file has grown, and the bytes never came."""
    HALF_ZEROS = "half, zeros"


SPOILED = (Fate.HALF, Fate.CLIPPED, Fate.ZEROS, Fate.HALF_ZEROS)


@dataclass(frozen=True)
class NameChange:
    """Names that were made, moved or removed by one call: where each link is now, None for nowhere."""

    number: int
    directories: frozenset[int]
    places: tuple[tuple[int, Place | None], ...]


@dataclass(frozen=True)
class DataChange:
    """Bytes that were written to a file, or (data of None) its size that was changed."""

    number: int
    file: int
    offset: int
    data: bytes | None

    def on(self, content: bytes, fate: Fate) -> bytes:
        """What the file holds with this change on top."""
        if fate is Fate.LOST:
            return content
        if self.data is None:
            return content[: self.offset].ljust(self.offset, b"\0")
        half = self.data[: len(self.data) // 2]
        written = {
            Fate.KEPT: self.data,
            Fate.HALF: half,
            Fate.CLIPPED: self.data[:-1],
            Fate.ZEROS: bytes(len(self.data)),
            Fate.HALF_ZEROS: half.ljust(len(self.data), b"\0"),
        }[fate]
        return content[: self.offset].ljust(self.offset, b"\0") + written + content[self.offset + len(written) :]


Change = NameChange | DataChange


@dataclass
class Disk:
    """A directory tree, with what is durable of it and what is not.

    A file or directory is a number, and so is each of its names (a link), which keeps its number when it is moved.
    """

    pending: list[Change] = field(default_factory=list)
    _files: dict[int, int] = field(default_factory=dict)
    _directories: set[int] = field(default_factory=lambda: {0})
    _seen: dict[Place, int] = field(default_factory=dict)
    _places: dict[int, Place] = field(default_factory=dict)
    _bytes: dict[int, bytes] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    _syncing: dict[int, tuple[int, int]] = field(default_factory=dict)
    _last: int = 0

    def copy(self) -> Disk:
        """The disk as it is now, which later steps leave alone; syncs that still run come to nothing."""
        return Disk(
            list(self.pending),
            dict(self._files),
            set(self._directories),
            dict(self._seen),
            dict(self._places),
            dict(self._bytes),
            dict(self._sizes),
            {},
            self._last,
        )

    # --- what the program does ------------------------------------------------------------------------------------

    def apply(self, step: Step) -> None:
        """Do what the program did; KeyError if that cannot be, because the recording has a gap."""
        match step.do:
            case Do.MAKE_FILE | Do.MAKE_DIRECTORY:
                self._make(step)
            case Do.WRITE:
                file = self._file(step.path)
                offset = self._sizes[file] if step.offset is None else step.offset
                self._sizes[file] = max(self._sizes[file], offset + len(step.data))
                self.pending.append(DataChange(self._next(), file, offset, step.data))
            case Do.TRUNCATE:
                file = self._file(step.path)
                self._sizes[file] = step.offset or 0
                self.pending.append(DataChange(self._next(), file, step.offset or 0, None))
            case Do.RENAME:
                self._rename(self._place(step.path), self._place(step.target))
            case Do.LINK:
                link = self._new_link(self._file(step.path))
                self._change_names({self._place(step.target): link})
            case Do.REMOVE | Do.REMOVE_DIRECTORY:
                self._change_names({self._place(step.path): None})
            case Do.BEGIN_SYNC:
                self._syncing[step.number] = self._file(step.path), self._last
            case Do.END_SYNC:
                self._synced(*self._syncing.pop(step.number))

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _file(self, path: str) -> int:
        return 0 if path == ROOT else self._files[self._seen[self._place(path)]]

    def _place(self, path: str) -> Place:
        whole = PurePosixPath(path)
        return self._file(str(whole.parent)), whole.name

    def _new_link(self, file: int) -> int:
        link = self._next()
        self._files[link] = file
        return link

    def _make(self, step: Step) -> None:
        file = self._next()
        if step.do is Do.MAKE_DIRECTORY:
            self._directories.add(file)
        else:
            self._bytes[file], self._sizes[file] = b"", 0
        self._change_names({self._place(step.path): self._new_link(file)})

    def _rename(self, source: Place, target: Place) -> None:
        if source != target:
            self._change_names({source: None, target: self._seen[source]})

    def _change_names(self, holders: dict[Place, int | None]) -> None:
        """Have names lead to other links, or to none: one change, whatever was there before."""
        where: dict[int, Place | None] = {self._seen[place]: None for place in holders if place in self._seen}
        for place, link in holders.items():
            if link is None:
                del self._seen[place]
            else:
                self._seen[place] = link
                where[link] = place
        directories = frozenset(directory for directory, _ in holders)
        self.pending.append(NameChange(self._next(), directories, tuple(where.items())))

    def _synced(self, file: int, last: int) -> None:
        """Make durable what a sync covers: what was done to this file or directory before the sync began."""
        covered = [change for change in self.pending if change.number <= last and _concerns(change, file)]
        settled: dict[int, int] = {}
        for change in covered:
            if isinstance(change, DataChange):
                self._bytes[file] = change.on(self._bytes[file], Fate.KEPT)
            else:
                _move(self._places, change)
                settled |= dict.fromkeys(dict(change.places), change.number)
        left = (_without(change, settled) for change in self.pending if change not in covered)
        self.pending = [change for change in left if change is not None]

    # --- what a power cut leaves ----------------------------------------------------------------------------------

    def state(self, fates: Sequence[Fate]) -> State:
        """What is there when each of the pending changes met its fate."""
        places = dict(self._places)
        contents: dict[int, bytes] = {}
        for change, fate in zip(self.pending, fates, strict=True):
            if isinstance(change, DataChange):
                contents[change.file] = change.on(contents.get(change.file, self._bytes[change.file]), fate)
            elif fate is not Fate.LOST:
                _move(places, change)
        names: dict[int, dict[str, int]] = {}
        for link, (directory, name) in places.items():
            names.setdefault(directory, {})[name] = self._files[link]
        return dict(self._walk(names, contents, 0, ""))

    def _walk(
        self, names: dict[int, dict[str, int]], contents: dict[int, bytes], directory: int, above: str
    ) -> Iterator[tuple[str, bytes | None]]:
        for name, file in sorted(names.get(directory, {}).items()):
            if file in self._directories:
                yield above + name, None
                yield from self._walk(names, contents, file, f"{above}{name}/")
            else:
                yield above + name, contents.get(file, self._bytes[file])

    def everything(self) -> list[Fate]:
        """The fates by which the disk is as the program sees it, as after a kill without a power cut."""
        return [Fate.KEPT] * len(self.pending)

    def fates(self, lot: random.Random) -> Iterator[tuple[Fate, ...]]:
        """The fates to be tried, none of them twice."""
        seen: set[tuple[Fate, ...]] = set()
        for fates in self._fates(lot):
            if fates not in seen:
                seen.add(fates)
                yield fates

    def _fates(self, lot: random.Random) -> Iterator[tuple[Fate, ...]]:
        pending, count = self.pending, len(self.pending)
        is_data = [isinstance(change, DataChange) for change in pending]
        yield (Fate.LOST,) * count
        yield (Fate.KEPT,) * count
        for of_data in (Fate.LOST, *SPOILED):
            yield tuple(self._fit(change, of_data, Fate.KEPT) for change in pending)
        yield tuple(Fate.KEPT if data else Fate.LOST for data in is_data)
        if sum(len(change.data or b"") for change in pending if isinstance(change, DataChange)) > MOST_BYTES_ALONE:
            return
        for at in sorted({*range(min(FIRST_ALONE, count)), *range(max(0, count - LAST_ALONE), count)}):
            yield (Fate.KEPT,) * at + (Fate.LOST,) * (count - at)
            yield (Fate.LOST,) * at + (Fate.KEPT,) + (Fate.LOST,) * (count - at - 1)
            yield (Fate.KEPT,) * at + (Fate.LOST,) + (Fate.KEPT,) * (count - at - 1)
            for spoiled in SPOILED if is_data[at] else ():
                fate = self._fit(pending[at], spoiled, Fate.KEPT)
                yield (Fate.KEPT,) * at + (fate,) + (Fate.LOST,) * (count - at - 1)
                yield (Fate.KEPT,) * at + (fate,) + (Fate.KEPT,) * (count - at - 1)
        for _ in range(MIXES_BY_LOT if count > 1 else 0):
            yield tuple(self._fit(change, lot.choice([*Fate]), lot.choice([Fate.KEPT, Fate.LOST])) for change in pending)

    @staticmethod
    def _fit(change: Change, of_data: Fate, of_name: Fate) -> Fate:
        if isinstance(change, NameChange):
            return of_name
        return Fate.KEPT if change.data is None and of_data in SPOILED else of_data


def _concerns(change: Change, file: int) -> bool:
    return change.file == file if isinstance(change, DataChange) else file in change.directories


def _move(places: dict[int, Place], change: NameChange) -> None:
    for link, place in change.places:
        # Put in anew, so that of two links that a lost removal leaves at one name the later has it.
        places.pop(link, None)
        if place is not None:
            places[link] = place


def _without(change: Change, settled: dict[int, int]) -> Change | None:
    """A change without the links of which a later change is durable; None if nothing is left of it."""
    if isinstance(change, DataChange):
        return change
    left = tuple((link, place) for link, place in change.places if settled.get(link, 0) < change.number)
    return replace(change, places=left) if left else None


class Digests:
    """Tells equal states from others, and reads each content only once."""

    def __init__(self) -> None:
        # The contents are kept with their digests, so that no other can come to have the same identity.
        self._known: dict[int, tuple[bytes, bytes]] = {}

    def of(self, state: State) -> bytes:
        """Equal for equal states."""
        whole = hashlib.blake2b(digest_size=16)
        for path, content in sorted(state.items()):
            whole.update(repr((path, None if content is None else self._of_content(content))).encode())
        return whole.digest()

    def _of_content(self, content: bytes) -> bytes:
        if len(content) < MOST_BYTES_ALONE:
            return hashlib.blake2b(content, digest_size=16).digest()
        if id(content) not in self._known:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[id(content)] = content, hashlib.blake2b(content, digest_size=16).digest()
        return self._known[id(content)][1]
