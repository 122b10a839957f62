"""The lock on a `cache_dir`: the kernel's, for the processes of one machine, and the record of the owner, for all others."""

from __future__ import annotations

from gateway.core import disk
from gateway.core.errors import StartError
from gateway.spool import cache_dir
from gateway.spool.directories import Directories
from gateway.spool.owner import LOCK, Ownership


class CacheDirLock:
    """The lock of one process, once it is acquired.

    Attributes:
        ownership: whether it still holds.

    Args:
        directories: what is locked.
    """

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self.ownership = Ownership(directories.root)
        self._lock: disk.Lock | None = None

    def acquire(self) -> None:
        """Take the `cache_dir`; StartError if it cannot be had, is newer than this version or not writable."""
        root = self._directories.root
        cache_dir.try_out(root, keep=True)
        try:
            self._lock = disk.Lock(root / LOCK, self.ownership.owner)
            cache_dir.clear(root)
        except OSError as error:
            raise StartError(f"cache_dir {root} cannot be used ({error.strerror or error}): mend the disk") from error
        try:
            self.ownership.take(self._lock)
            self._directories.check_format()
        except StartError:
            self.release()
            raise

    @property
    def descriptor(self) -> int:
        """Of the kernel's lock: a process that inherits it holds the lock as well."""
        assert self._lock is not None  # asked once it was acquired
        return self._lock.descriptor

    def release(self) -> None:
        """Give the `cache_dir` up to another process."""
        try:
            # The record first: a program that gets the lock must not wait for the end of one that has ended.
            self.ownership.give_up()
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None
