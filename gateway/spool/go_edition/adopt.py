"""The adoption of a `cache_dir` that the Go edition left: all of it delivered, or quarantined with a line in the log.

Its layout has no FORMAT:

    usage/ error/       reports: see `spool/go_edition/reports.py`
    specimen/           <YYYYmmddHHMMSS>[.<fraction>].<pid>.<escaped uri>
        uploading/      the same, being uploaded or held by a failed upload

First every directory of the Go edition is moved whole to `adopting/`, durably; only then the new layout is made, FORMAT
last. So while there is no FORMAT, what stands outside is the Go edition's, or empty and ours; afterwards it is ours.
Then `adopting/` is emptied. A spool of this edition that has lost its FORMAT comes here, too: what bears a name that only
this edition gives goes back to where it was before anything else is done.
Whatever a crash leaves of `adopting/`, the next start comes here again before anything is received or delivered, so what was
committed is still there to be found, and each step looks for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from gateway.core import disk, media_type
from gateway.core.errors import StartError
from gateway.core.streams import FILES, LINES, Form
from gateway.spool import names
from gateway.spool.directories import Directories
from gateway.spool.go_edition.names import STRANGE, UNKNOWN_USER, Adopted, FileName, Left, is_plain_file, parse_file_name
from gateway.spool.go_edition.reports import adopt_reports
from gateway.spool.sidecar import Sidecar, sidecar_of
from gateway.spool.spool import Spool
from gateway.telemetry.metrics import ADOPTING

# So many files share the syncs of their directories.
GROUP_FILES = 1000
# The streams of the Go edition.
_FORMS = {"usage": LINES, "error": LINES, "specimen": FILES}
_ID_CHARACTERS = 32


def needs_adoption(spool: Spool) -> bool:
    """Whether the Go edition left something, or an adoption was interrupted."""
    if os.path.lexists(spool.root / ADOPTING):
        return True
    return spool.directories.format_version() is None and bool(_outside(spool))


def check_streams(layout: Directories) -> None:
    """Refuse to adopt what is of a stream that is switched off, or has another form; nothing on the disk is changed.

    Once FORMAT is there, whatever has a name of the Go edition is a stranger's.

    Raises:
        StartError: names the key, and what to do.
    """
    has_format = layout.format_version() is not None
    adopting = list(disk.names(layout.root / ADOPTING)) if disk.is_directory(layout.root / ADOPTING) else []
    for name, form in _FORMS.items():
        stream = next((stream for stream in layout.streams if stream.name == name), None)
        if stream is not None and stream.form is form:
            continue
        left = [layout.root / ADOPTING / each for each in adopting if each.partition(".")[0] == name]
        # What has our names is kept for a stream that is switched off; one of another form would take it for a stranger's.
        if not has_format and _holds(layout.root / name, form, only_of_go=stream is None):
            left.append(layout.root / name)
        if left:
            key, right = (f"streams.{name}.enabled", "true") if stream is None else (f"streams.{name}.form", form.name)
            raise StartError(
                f"{key}: must be {right} until {left[0]} is taken over; start once so, and change it when its files are delivered"
            )


def _holds(directory: Path, form: Form, *, only_of_go: bool) -> bool:
    """Whether there is a file in a directory of the Go edition, or only of those that cannot be ours."""
    if not disk.is_directory(directory):
        return False
    for within in ("aggregation", "uploading", ""):
        folder = directory / within
        for name in disk.names(folder) if disk.is_directory(folder) else ():
            if not within and name in ("aggregation", "uploading") and disk.is_directory(folder / name):
                continue
            if not only_of_go or not _is_ours(name, within, is_of_files=form.has_sidecar):
                return True
    return False


def adopt(spool: Spool) -> Adopted:
    """Take over everything, also what an interrupted adoption left; the spool is laid out afterwards.

    Nothing is added to the tallies: recovery, which comes next, counts what it finds.

    Raises:
        OSError: the disk does not let it; nothing was lost, and the next start goes on.
    """
    adopting = spool.root / ADOPTING
    if spool.directories.format_version() is None:
        _move_aside(spool, adopting)
    spool.directories.lay_out()
    for name in list(disk.names(spool.directories.tmp)):
        # Drafts of an interrupted adoption: on a full disk they would leave the next one no room.
        if not disk.is_directory(spool.directories.tmp / name):
            disk.remove(spool.directories.tmp / name)
    adopted = Adopted()
    for name in sorted(disk.names(adopting)):
        _adopt(spool, adopting / name, adopted)
    disk.remove_directory(adopting)
    disk.sync_directory(spool.root)
    return adopted


def _outside(spool: Spool) -> list[Path]:
    found = (spool.directories.of(stream) for stream in spool.streams)
    return [path for path in found if os.path.lexists(path)]


def _move_aside(spool: Spool, adopting: Path) -> None:
    """Move what stands under our names to `adopting/<stream>`, or `<stream>.2` and so on where that was done before."""
    disk.make_directory(adopting)
    for path in _outside(spool):
        target, number = adopting / path.name, 1
        while os.path.lexists(target):
            number += 1
            target = adopting / f"{path.name}.{number}"
        disk.place(path, target)
    disk.sync_directory(adopting)
    disk.sync_directory(spool.root)


def _adopt(spool: Spool, root: Path, adopted: Adopted) -> None:
    stream = next((stream for stream in spool.streams if stream.name == root.name.partition(".")[0]), None)
    if stream is None or not disk.is_directory(root):
        Left(spool, ADOPTING, root, spool.root, adopted).quarantine(root, STRANGE)
        return
    left = Left(spool, stream.name, root, spool.directories.of(stream), adopted, is_of_files=stream.form.has_sidecar)
    _give_back(left)
    if stream.form.has_segments:
        adopt_reports(left)
    else:
        _adopt_files(left)


# --- what is ours -----------------------------------------------------------------------------------------------


def _give_back(left: Left) -> None:
    """Move what has a name that only this edition gives to where it was before it was moved aside."""
    for within in ("aggregation", "uploading", ""):
        source, target = left.root / within, left.target / within
        if not disk.is_directory(source):
            continue
        # All of them first: a look at a directory that changes may miss a name.
        found = [name for name in disk.names(source) if _is_ours(name, within, is_of_files=left.is_of_files)]
        if not found:
            continue
        disk.make_directory(target)
        for name in found:
            if os.path.lexists(target / name):
                left.quarantine(source / name, "its name is taken")
                continue
            disk.place(source / name, target / name)
            left.adopted.kept += 1
        disk.sync_directory(target)
        disk.sync_directory(source)


def _is_ours(name: str, within: str, *, is_of_files: bool) -> bool:
    """Whether a name is one that the Go edition cannot have given; those of reports in format 1 are known by FORMAT alone."""
    is_note = name.endswith(f".{names.UPLOAD_NOTE}")
    bare = name.removesuffix(f".{names.UPLOAD_NOTE}")
    if within == "aggregation":
        return names.parse_batch(name) is not None
    if within == "uploading":
        return names.parse_sealed(bare) is not None
    parsed = names.parse_spool_name(bare)
    if parsed is None or (parsed.kind in (names.BODY, names.SIDECAR)) != is_of_files:
        # A user of the Go edition's may be called anything.
        return False
    return is_of_files or (parsed.received is not None and not is_note)


# --- files -------------------------------------------------------------------------------------------------------


def _adopt_files(left: Left) -> None:
    """Empty a directory of received files, and remove it."""
    uploading = left.root / "uploading"
    for directory in (uploading, left.root):
        if not disk.is_directory(directory):
            continue
        while found := list(islice(disk.names(directory), GROUP_FILES)):
            _commit(left, directory, _with_sidecars(left, directory, found))
        disk.remove_directory(directory)
        disk.sync_directory(directory.parent)


def _with_sidecars(left: Left, directory: Path, found: Iterable[str]) -> dict[Path, Path]:
    """Give each file a sidecar; return the files by the names that their bodies will have.

    A crash leaves sidecars without a body, which a repetition writes again, the same or for another file, and which
    recovery erases when none does.
    """
    bodies: dict[Path, Path] = {}
    for name in found:
        source, parsed = directory / name, parse_file_name(name)
        if parsed is None or not is_plain_file(source):
            left.quarantine(source, STRANGE)
            continue
        body, received = _place_for(left, parsed)
        draft = left.spool.new_tmp()
        disk.write_file(draft, _sidecar(source, parsed, received).to_json())
        disk.replace(draft, sidecar_of(body))
        # Of two names in one group that read the same, the first one's turn comes again.
        bodies[body] = source
    return bodies


def _place_for(left: Left, parsed: FileName) -> tuple[Path, int]:
    """The name of a body that no other has, and its instant, which is the file's own if that can be."""
    received = left.spool.timestamps.next() if parsed.received is None else parsed.received
    while True:
        longest = left.spool.directories.max_name_bytes
        body = left.target / names.spool_name(received, received, parsed.pid, names.BODY, parsed.uri, max_bytes=longest)
        if not os.path.lexists(body):
            return body, received
        received = left.spool.timestamps.next()


def _sidecar(source: Path, parsed: FileName, received: int) -> Sidecar:
    size, content, first_bytes = 0, hashlib.sha256(), b""
    for chunk in disk.read_chunks(source):
        first_bytes = first_bytes or chunk[: media_type.MAGIC_BYTES]
        content.update(chunk)
        size += len(chunk)
    # The same at each repetition, and another on another machine even where the clock said the same.
    identity = hashlib.sha256(os.fsencode(source.name) + b"\0" + content.digest()).hexdigest()
    return Sidecar(
        id=identity[:_ID_CHARACTERS],
        user=UNKNOWN_USER,
        uri=parsed.uri,
        type=media_type.content_type("", first_bytes),
        received=received,
        size=size,
        sha256=content.hexdigest(),
    )


def _commit(left: Left, directory: Path, bodies: dict[Path, Path]) -> None:
    """Move the bodies beside their sidecars; a crash leaves each of them in one place or in the other."""
    disk.sync_directory(left.target)
    disk.sync_files(bodies.values())
    for body, source in bodies.items():
        disk.place(source, body)
    disk.sync_directory(left.target)
    disk.sync_directory(directory)
    left.adopted.files += len(bodies)
