"""A store in a directory: for development, and for a mounted share.

    <root>/<bucket>/<key>                      the object
    <root>/.metadata/<bucket>/<key>.json       its metadata, in place first
    <root>/.drafts/<pid>.<random>              what is being written; of a killed gateway, until another start finds it old

The metadata decides whose key it is: linking it refuses to replace, so of two gateways that share the directory one wins.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import orjson

from gateway.core import disk
from gateway.core.errors import ObjectRefused, Transient
from gateway.stores import Object, Outcome
from gateway.stores.file_slice import body_of

# Of another gateway that shares the directory; whatever is being written or was just linked has changed since.
_ABANDONED_S = 3600.0


class LocalStore:
    """Keeps objects as files under a root directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._making = threading.Lock()
        self._is_clear = False

    async def honours_condition(self, bucket: str, prefix: str) -> bool:
        """Always: the kernel refuses to link over a name."""
        del bucket, prefix
        return True

    async def put(self, target: Object) -> Outcome:
        """See `Store.put`."""
        try:
            return await asyncio.to_thread(self._put, target)
        except OSError as error:
            raise Transient(f"{self._root}: {error.strerror or error}") from error

    async def holds(self, target: Object) -> bool:
        """See `Store.holds`."""
        found = self._found(self._metadata_path(target))
        path = self._path(target)
        return found is not None and target.is_held_as(found) and path.exists() and path.stat().st_size == target.size

    async def is_free(self, target: Object) -> bool:
        """See `Store.is_free`."""
        return not await asyncio.to_thread(self._is_taken, target)

    async def close(self) -> None:
        """Nothing is held open."""

    def _is_taken(self, target: Object) -> bool:
        return os.path.lexists(self._path(target)) or os.path.lexists(self._metadata_path(target))

    def _path(self, target: Object) -> Path:
        return self._root / target.bucket / target.key

    def _metadata_path(self, target: Object) -> Path:
        return self._root / ".metadata" / target.bucket / f"{target.key}.json"

    def _put(self, target: Object) -> Outcome:
        path, metadata_path = self._path(target), self._metadata_path(target)
        with self._making:
            # One at a time: a directory that is found may have a name that another thread still has to sync.
            for directory in (self._drafts(), path.parent, metadata_path.parent):
                disk.make_directory(directory)
            if not self._is_clear:
                self._remove_abandoned()
                self._is_clear = True
        found = self._found(metadata_path)
        if found is None:
            if os.path.lexists(path) or not self._claim_key(target, metadata_path):
                return Outcome.TAKEN
        elif not target.is_held_as(found):
            return Outcome.TAKEN
        elif target.differences(found):
            raise ObjectRefused(f"{path} is this object with other content ({', '.join(target.differences(found))})")
        if os.path.lexists(path):
            if (size := path.stat().st_size) != target.size:
                raise ObjectRefused(f"{path} is this object with other content (size {size} for {target.size})")
            # A crash may have come between the link and the sync.
            disk.sync_directory(path.parent)
            return Outcome.PRESENT
        self._link_object(target, path)
        if (size := path.stat().st_size) != target.size:
            # A share that says yes to everything.
            raise OSError(f"{path} was linked, and has {size} bytes for {target.size}")
        return Outcome.STORED

    def _claim_key(self, target: Object, metadata_path: Path) -> bool:
        draft = self._drafts() / f"{os.getpid()}.{os.urandom(8).hex()}"
        disk.write_file(draft, orjson.dumps(dict(target.metadata)) + b"\n")
        try:
            disk.link(draft, metadata_path)
        except FileExistsError:
            return False
        finally:
            disk.remove(draft)
        disk.sync_directory(metadata_path.parent)
        return True

    def _link_object(self, target: Object, path: Path) -> None:
        draft = self._drafts() / f"{os.getpid()}.{os.urandom(8).hex()}"
        try:
            if isinstance(target.source, Path):
                _second_name(target.source, draft, target.size)
            else:
                with body_of(target.source, 0, target.size) as body:
                    disk.write_chunks(draft, iter(lambda: body.read(disk.COPY_CHUNK_BYTES), b""))
            disk.link(draft, path)
        finally:
            disk.remove(draft)
        disk.sync_directory(path.parent)

    def _remove_abandoned(self) -> None:
        """Remove what a killed gateway has left: a link here would keep the bytes of a removed object on the disk."""
        latest = time.time() - _ABANDONED_S
        for draft in self._drafts().iterdir():
            try:
                # Not the time of the content, which a link has from the spool.
                if draft.stat().st_ctime < latest:
                    disk.remove(draft)
            except FileNotFoundError:
                # Another gateway was quicker.
                continue

    def _drafts(self) -> Path:
        return self._root / ".drafts"

    @staticmethod
    def _found(metadata_path: Path) -> Mapping[str, str] | None:
        try:
            found = orjson.loads(metadata_path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def _second_name(source: Path, draft: Path, size: int) -> None:
    """Give the bytes a name under the store: the same file where that can be, else a synced copy."""
    try:
        disk.link(source, draft)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
            raise
        disk.copy_part(source, draft, 0, size)
