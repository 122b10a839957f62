"""Room for received data on the disk of the spool: its quota, its reserve and its inodes.

A small report asks at the door (`check`) and is promised its bytes until they are synced. A body that goes into a file asks
before each write (`charge`), in the thread that writes it, so that it counts by what is written of it, whatever was sent:

    charge ─▶ write ─▶ landed

What is charged is added before it is compared, so that bodies that ask at the same time, also in other processes, never pass
a bound together.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from gateway.core import disk
from gateway.core.disk import FileSystem
from gateway.core.errors import GatewayError, SpoolBroken, SpoolFull
from gateway.spool.spool import Spool

# How long a look at the file system is good for, and for how many bytes that bodies write meanwhile.
ROOM_LOOK_S = 0.2
ROOM_LOOK_BYTES = 8 << 20
# Of these aggregation makes directories and archives, and delivery the notes of uploads in parts.
DELIVERY_INODES = 1000
# The segments of all workers, what they are copied to after a failed sync, and what is written to try the disk.
SEGMENT_INODES = 256
_KEPT = "the disk has no room: a quota or the file system grants no more, and what is left is kept for delivery"
KEPT_INODES = DELIVERY_INODES + SEGMENT_INODES


class DiskRoom:
    """Room on the disk.

    Args:
        spool: whose disk it is, and whose counts are compared with the quota.
        quota: bytes of received data in the spool, 0 for no bound.
        reserve: bytes of the disk that only aggregation may use.
        look: asks the file system.
    """

    def __init__(
        self,
        spool: Spool,
        quota: int,
        reserve: int,
        *,
        look: Callable[[], FileSystem] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._accounting = spool.accounting
        self._ballast = spool.ballast
        self._quota = quota
        self._reserve = reserve
        self._look = look or partial(disk.file_system, spool.root)
        self._monotonic = monotonic
        # Bytes that are kept for bodies; changed by the event loop's thread alone.
        self.promised_bytes = 0
        # What the event loop's thread has seen, when, how many bytes that left, and how many files it has let in since.
        self._seen = FileSystem(0)
        self._seen_at = float("-inf")
        self._left = 0
        self._is_kept = False
        self._files_since = 0
        # The same for the threads that write, and how many bytes were written at all when they looked.
        self._lock = threading.Lock()
        self._charge_seen = FileSystem(0)
        self._charge_seen_at = float("-inf")
        self._charge_is_kept = False
        self._landed_then = 0

    # --- the event loop's side ------------------------------------------------------------------------------------

    def check(self, size: int, files: int = 0) -> None:
        """SpoolFull if there is no room for `size` bytes, or `files` files, beside what is promised; SpoolBroken if none can be.

        The files are counted as made until the next look.
        """
        wanted = size + self.promised_bytes
        if self._quota and self._accounting.used_bytes() + wanted > self._quota:
            raise SpoolFull("the spool has reached its quota")
        if self._monotonic() - self._seen_at > ROOM_LOOK_S:
            self._look_at_the_door()
        if self._left < wanted or self._left <= 0:
            raise self._refusal()
        if files:
            self._take_files(files)

    def _look_at_the_door(self) -> None:
        seen = self._look_now()
        self._seen, self._seen_at, self._files_since = seen, self._monotonic(), 0
        self._is_kept = self._ballast.is_given_up()
        has_none = self._is_kept or seen.is_read_only or self._inodes_are_short()
        self._left = 0 if has_none else seen.free_bytes - self._reserve

    def _inodes_are_short(self) -> bool:
        free = self._seen.free_inodes
        return free is not None and free - self._files_since < KEPT_INODES

    def _take_files(self, files: int) -> None:
        if self._inodes_are_short():
            raise self._refusal()
        self._files_since += files

    def _refusal(self) -> GatewayError:
        if self._seen.is_read_only:
            return _read_only()
        if self._inodes_are_short():
            return SpoolFull(
                f"the file system of cache_dir has {self._seen.free_inodes} inodes free, and {KEPT_INODES} are kept for "
                "aggregation and delivery: remove files there that are not the spool's, or give it a file system with more inodes"
            )
        if self._is_kept:
            return SpoolFull(_KEPT)
        return SpoolFull("the disk has no room")

    # --- the side of the threads that write -----------------------------------------------------------------------

    def charge(self, size: int, own_promise: int) -> None:
        """Count bytes that are about to be written; SpoolFull, and nothing is counted, if they pass quota or reserve.

        Args:
            size: of the write.
            own_promise: what is promised to the same body; what is promised to others is kept for them.
        """
        promised = self.promised_bytes - own_promise
        accounting = self._accounting
        # One at a time, so that of two that ask for the last room one gets it.
        with self._lock:
            accounting.charge(size)
            try:
                if self._quota and accounting.used_bytes() + promised > self._quota:
                    raise SpoolFull("the spool has reached its quota")
                self._check_disk(promised)
            except BaseException:
                accounting.take_back(size)
                raise

    def landed(self, size: int) -> None:
        """What was charged is written, or could not be: from now on a look at the disk has seen it."""
        with self._lock:
            self._accounting.landed(size)

    def _check_disk(self, promised: int) -> None:
        written = self._accounting.written
        ahead = written.total(0) - self._landed_then
        now = self._monotonic()
        if now - self._charge_seen_at > ROOM_LOOK_S or ahead > ROOM_LOOK_BYTES:
            # Before the look: what lands after this may be among the free bytes that it finds, or not.
            landed = written.total(1)
            self._charge_seen = self._look_now()
            self._charge_is_kept = self._ballast.is_given_up()
            self._charge_seen_at, self._landed_then = now, landed
            ahead = written.total(0) - landed
            # What the event loop's thread has seen is as old.
            self._seen_at = float("-inf")
        if self._charge_seen.is_read_only:
            raise _read_only()
        if self._charge_is_kept:
            raise SpoolFull(_KEPT)
        if self._charge_seen.free_bytes - self._reserve < ahead + promised:
            raise SpoolFull("the disk has no room")

    def _look_now(self) -> FileSystem:
        try:
            return self._look()
        except OSError as error:
            raise SpoolBroken(f"the disk cannot be asked for its room ({error.strerror or error})") from error


def _read_only() -> SpoolBroken:
    return SpoolBroken("the file system of cache_dir is read-only: see what the kernel says of it, and mount it to be written")
