"""What waits of streams that are not configured any more: kept and reported, and delivered once the stream is put back."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.core import clock, disk
from gateway.core.errors import StartError
from gateway.core.streams import FILES, LINES, Form, Stream
from gateway.spool import names
from gateway.spool.directories import Directories

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
# Directories of the gateway's own.
_OWN = frozenset({"tmp", "quarantine", "adopting"})


def _ignore(_: Path, __: OSError) -> None:
    """A caller that does not ask which directories cannot be read."""


@dataclass(frozen=True, slots=True)
class LeftStream:
    """What waits of one stream that is not configured.

    Attributes:
        name: of the stream.
        files: how many wait.
        bytes: in them.
        oldest: when the oldest was received, in nanoseconds since the epoch.
        newest: the highest order of their names.
    """

    name: str
    files: int
    bytes: int
    oldest: int
    newest: int

    def __str__(self) -> str:
        waits = "file waits" if self.files == 1 else "files wait"
        return (
            f"{self.files} {waits}, and the stream is not configured: put streams.{self.name} back to have that delivered, "
            "or move the directory away if it is a copy"
        )


def left_streams(layout: Directories, on_unreadable: Callable[[Path, OSError], None] = _ignore) -> list[LeftStream]:
    """Find the streams with something that waits and no place in the configuration; empty directories are none.

    Args:
        layout: where to look.
        on_unreadable: called with a directory that cannot be read. It may be a stranger's, which must not keep the gateway from
            its work.
    """
    found = []
    for name in sorted(_unknown(layout)):
        files = size = oldest = newest = 0
        try:
            for path, received, order in _waiting(layout.root / name):
                oldest = received if files == 0 else min(oldest, received)
                newest = max(newest, order)
                files += 1
                size += _size_of(path)
        except OSError as error:
            on_unreadable(layout.root / name, error)
        if files:
            found.append(LeftStream(name, files, size, oldest, newest))
    return found


def left_batches(layout: Directories) -> Iterator[tuple[names.Batch, names.KeyNumber]]:
    """The sealed batches of such streams, each with the number of its key."""
    for name in _unknown(layout):
        # One that cannot be read may be a stranger's; it is reported at the start.
        with contextlib.suppress(OSError):
            for sealed in _names_in(layout.root / name / "uploading"):
                if (parsed := names.parse_sealed(sealed)) is not None:
                    yield parsed


def check_forms(layout: Directories) -> None:
    """Refuse a stream whose directory holds what another form of stream has received; nothing on the disk is changed.

    Raises:
        StartError: names the key, and what to do.
    """
    for stream in layout.streams:
        held = form_held(layout, stream)
        if held is not None and held is not stream.form:
            count = sum(1 for _ in _waiting(layout.of(stream)))
            raise StartError(
                f"streams.{stream.name}.form: is {stream.form.name}, and {count} files wait in {layout.of(stream)} "
                f"that were received as {held.name}; set it back to {held.name} until they are delivered, or give the new "
                "stream another name"
            )


def form_held(layout: Directories, stream: Stream) -> Form | None:
    """The form of what waits in the directory of a stream; None where nothing does, or there is something of both forms."""
    directory = layout.of(stream)
    is_of_lines = any(_in_folders(directory))
    is_of_files = False
    for name in disk.names(directory):
        parsed = names.parse_spool_name(name)
        if parsed is None:
            continue
        is_of_files |= parsed.kind == names.BODY
        is_of_lines |= parsed.kind not in (names.BODY, names.SIDECAR)
    if is_of_lines == is_of_files:
        return None
    return LINES if is_of_lines else FILES


def _unknown(layout: Directories) -> list[str]:
    known = {stream.name for stream in layout.streams} | _OWN
    return [
        name
        for name in disk.names(layout.root)
        if _NAME.fullmatch(name) and name not in known and disk.is_directory(layout.root / name)
    ]


def _waiting(directory: Path) -> Iterator[tuple[Path, int, int]]:
    """Each file that waits, when it was received, in nanoseconds since the epoch (to the hour for batches), and its order.

    What is sealed has no order any more: 0.
    """
    for name in disk.names(directory):
        parsed = names.parse_spool_name(name)
        if parsed is not None and parsed.kind != names.SIDECAR:
            yield directory / name, parsed.received_ns, parsed.order
    yield from _in_folders(directory)


def _in_folders(directory: Path) -> Iterator[tuple[Path, int, int]]:
    for name in _names_in(directory / "uploading"):
        sealed = names.parse_sealed(name)
        if sealed is not None:
            yield directory / "uploading" / name, clock.instant_of(sealed[0].hour), 0
    for name in _names_in(directory / "aggregation"):
        batch = names.parse_batch(name)
        if batch is not None and disk.is_directory(directory / "aggregation" / name):
            for source in disk.names(directory / "aggregation" / name):
                parsed = names.parse_spool_name(source)
                yield directory / "aggregation" / name / source, clock.instant_of(batch.hour), parsed.order if parsed else 0


def _names_in(folder: Path) -> Iterator[str]:
    """None where a file has the name of the folder."""
    return disk.names(folder) if disk.is_directory(folder) else iter(())


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
