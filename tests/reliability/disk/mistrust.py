"""What must not be done after a sync has failed, or before one: read out of the calls that a gateway has made.

A failed sync is told once: the kernel may have dropped what it could not write and call it clean, so that the next one says
yes to what is not on the disk. A change of a name counts from the sync of the directory that holds it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from reliability.disk.strace import Traced

SYNCS = ("fdatasync", "fsync")
WRITES = ("write", "writev", "pwrite64", "copy_file_range", "sendfile")


def wrongs(calls: Iterable[Traced]) -> Iterator[str]:
    """Everything that must not be, each with what it is called."""
    calls = list(calls)
    for name, found in (
        ("used after a failed sync", trusted_again(calls)),
        ("renamed before it was synced", renamed_unsynced(calls)),
        ("gone on with before its name was synced", hurried(calls)),
        ("taken for durable though its name was not synced", nameless(calls)),
        ("left without its name before its body was gone for good", abandoned(calls)),
    ):
        yield from (f"{name}: {one}" for one in found)


def trusted_again(calls: Iterable[Traced]) -> list[str]:
    """What was done with a file after a sync of it had failed, as if nothing had been.

    It may be read, cut back, removed and replaced, but neither written nor synced nor given another name.
    """
    directories: set[int] = set()
    descriptors: set[int] = set()
    paths: set[str] = set()
    wrong = []
    for call in calls:
        path = call.paths[0] if call.paths else ""
        # A close lets go of the descriptor even if it fails.
        if call.name == "close":
            directories.discard(call.descriptor)
            descriptors.discard(call.descriptor)
        elif call.name in SYNCS and call.error:
            if call.descriptor not in directories:
                descriptors.add(call.descriptor)
                paths.add(path)
        elif call.error:
            continue
        elif call.name == "openat" and "O_DIRECTORY" in call.flags:
            directories.add(call.descriptor)
        elif call.name == "openat":
            if path in paths and "O_RDONLY" not in call.flags:
                wrong.append(f"opened to be written: {path}")
        elif call.name in (*SYNCS, *WRITES):
            if call.descriptor in descriptors:
                wrong.append(f"{call.name}: {path}")
        elif call.name == "rename" and path in paths:
            wrong.append(f"renamed: {path}")
        elif call.name in ("unlink", "rename"):
            paths.discard(call.paths[-1])
    return wrong


def renamed_unsynced(calls: Iterable[Traced]) -> list[str]:
    """Files that were given another name with bytes in them that were not synced."""
    unsynced: set[str] = set()
    wrong = []
    for call in calls:
        if call.error or not call.paths:
            continue
        if call.name in WRITES:
            unsynced.add(call.paths[0])
        elif call.name in (*SYNCS, "unlink"):
            unsynced.discard(call.paths[0])
        elif call.name == "rename":
            # What had that name is gone, synced or not.
            unsynced.discard(call.paths[1])
            if call.paths[0] in unsynced:
                unsynced.discard(call.paths[0])
                wrong.append(f"{call.paths[0]} -> {call.paths[1]}")
    return wrong


def hurried(calls: Iterable[Traced]) -> list[str]:
    """Sources of a batch that were read before their move was durable, or removed before the name of their archive was."""
    # Which directories have still to be synced for a name that was given.
    owed: dict[str, set[str]] = defaultdict(set)
    wrong = []
    for call in calls:
        if call.error or not call.paths:
            continue
        path = call.paths[-1]
        parent = PurePosixPath(path).parent
        if call.name in SYNCS:
            for directories in owed.values():
                directories.discard(path)
        elif call.name == "rename" and parent.parent.name == "aggregation":
            owed[path] = {str(parent), str(PurePosixPath(call.paths[0]).parent)}
        elif call.name == "rename" and parent.name == "uploading":
            owed[path] = {str(parent)}
        elif parent.parent.name != "aggregation":
            continue
        elif call.name == "openat" and owed[path]:
            wrong.append(f"read: {path}")
        elif call.name == "unlink":
            archive = f"{parent.parent.parent / 'uploading' / parent.name}."
            wrong += [f"removed: {path}" for name, directories in owed.items() if name.startswith(archive) and directories]
            owed.pop(path, None)
    return wrong


def nameless(calls: Iterable[Traced]) -> list[str]:
    """Segments that were synced to be answered for, though the sync of the directory that was to keep their name had failed."""
    given: set[str] = set()
    doubted: set[str] = set()
    wrong = []
    for call in calls:
        if not call.paths:
            continue
        path = call.paths[-1]
        if call.name == "fsync":
            here = {name for name in given | doubted if str(PurePosixPath(name).parent) == path}
            given -= here
            doubted = doubted | here if call.error else doubted - here
        elif call.error or not path.endswith(".jsonl.open"):
            continue
        elif call.name == "rename" or (call.name == "openat" and "O_CREAT" in call.flags):
            given.add(path)
        elif call.name == "unlink":
            given.discard(path)
            doubted.discard(path)
        elif call.name == "fdatasync" and path in doubted:
            wrong.append(f"synced: {path}")
    return wrong


def abandoned(calls: Iterable[Traced]) -> list[str]:
    """Sidecars that were removed before the removal of their bodies was durable, of which nobody would know whose they are."""
    # Bodies with a name that is not synced yet, which nobody was promised, and those whose removal is not.
    given: set[str] = set()
    removed: set[str] = set()
    wrong = []
    for call in calls:
        if call.error or not call.paths:
            continue
        path = call.paths[-1]
        if call.name in SYNCS:
            given = {body for body in given if str(PurePosixPath(body).parent) != path}
            removed = {body for body in removed if str(PurePosixPath(body).parent) != path}
        elif call.name == "rename" and path.endswith(".body"):
            given.add(path)
        elif call.name == "unlink" and path.endswith(".body"):
            if path not in given:
                removed.add(path)
            given.discard(path)
        elif call.name == "unlink" and path.endswith(".meta") and f"{path.removesuffix('meta')}body" in removed:
            wrong.append(f"removed: {path}")
    return wrong
