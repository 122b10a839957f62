"""Whether a directory can hold the spool: what every start needs of it is done once, and nothing of that is left.

The start and `check-config` ask here alone, so that they cannot disagree.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from gateway.core import disk
from gateway.core.errors import StartError, is_full

_CHECK = ".check."
_MIB = 1 << 20


def try_out(root: Path, *, keep: bool) -> None:
    """Make the directory, write, sync, rename and lock a file in it, and remove that.

    Args:
        root: the `cache_dir`.
        keep: whether the directory stays, and a full disk is no fault: what waits there has to be delivered.

    Raises:
        StartError: it cannot hold the spool.
    """
    made: list[Path] = []
    try:
        _make(root, made)
        _try_a_file(root)
    except OSError as error:
        if keep and is_full(error):
            return
        # The file of the trial is nothing that anybody knows; a directory above is.
        place = f"{error.filename}: " if error.filename and Path(error.filename) in root.parents else ""
        raise StartError(
            f"cache_dir {root} cannot be used ({place}{error.strerror or error}): "
            "give a directory that this user may write, with cache_dir or LIGHTFILE6_CACHE_DIR"
        ) from error
    finally:
        if not keep:
            for directory in reversed(made):
                disk.remove_directory(directory)


def clear(root: Path) -> None:
    """Remove what a trial has left that was killed."""
    for name in list(disk.names(root)):
        if name.startswith(_CHECK) and disk.is_file(root / name):
            disk.remove(root / name)


def _make(path: Path, made: list[Path]) -> None:
    if path.is_dir():
        return
    if os.path.lexists(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not path.parent.is_dir():
        _make(path.parent, made)
    disk.make_directory(path)
    made.append(path)


def _try_a_file(root: Path) -> None:
    drafted, placed = (root / f"{_CHECK}{os.getpid()}.{step}" for step in (1, 2))
    # In a container the process id is the same at every start, and one may have been killed here.
    for path in (drafted, placed):
        disk.remove(path)
    try:
        disk.write_file(drafted, b"a trial\n")
        disk.place(drafted, placed)
        _sync(root)
        disk.try_lock(placed)
    finally:
        for path in (drafted, placed):
            disk.remove(path)


def _sync(root: Path) -> None:
    try:
        disk.sync_directory(root)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
        raise StartError(
            f"cache_dir {root} is on a file system that does not make names durable (fsync of a directory: {error.strerror}), as "
            "CIFS is one: what was acknowledged would be lost with the power; give a directory on another file system"
        ) from error


def room_fault(root: Path, reserve: int, *, is_empty: bool) -> str | None:
    """Why nothing could be received on the disk of a directory, if that is so.

    Args:
        root: the `cache_dir`, or the nearest directory above it that is there.
        reserve: `spool.reserve`.
        is_empty: whether nothing waits, which would become room when it is delivered.
    """
    seen = disk.file_system(root)
    kept = f"spool.reserve: {reserve // _MIB} MiB are kept free for the making of objects"
    advice = f"set it to at most {max(1, seen.total_bytes // 4 // _MIB)}MiB, or give cache_dir a larger disk"
    if seen.total_bytes <= reserve:
        return f"{kept}, and the whole disk of {root} has {seen.total_bytes // _MIB} MiB: nothing could be received; {advice}"
    if is_empty and seen.free_bytes <= reserve:
        free = f"the disk of {root} has only {seen.free_bytes // _MIB} MiB free"
        return f"{kept}, and {free}, and nothing waits that could leave: nothing could be received; make room, or {advice}"
    return None
