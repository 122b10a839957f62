"""Room that is kept for a disk, or somebody's share of it, that grants nothing any more.

The free space that a file system shows is not what it grants: quotas of projects, users, NFS and Ceph, copy on write, and other
programs that write. Where nothing is granted, on some not even a rename, what waits could never leave. So a file of some
megabytes stands in `cache_dir`:

    BALLAST          as large as a disk of this size can spare; random, so that nothing makes it smaller

A step of the start, of aggregation or of delivery that finds no room has it removed, and is taken once more. As long as it is
gone nothing is received, since what comes would take that room as well. When there is room for it, it is laid down again.
"""

from __future__ import annotations

import asyncio
import math
import os
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.core import disk
from gateway.core.backoff import Doubling
from gateway.core.errors import is_full
from gateway.telemetry.log import Log
from gateway.telemetry.repeated_failure import Repeated

BALLAST = "BALLAST"
# A disk spares this part of it, up to so much; one that has less than the least is too small for any.
_PART_OF_DISK = 256
_MOST_BYTES, _LEAST_BYTES = 4 << 20, 256 << 10
_WRITE_BYTES = 256 << 10
# How often it is looked whether it is there, and how long that pause grows while it cannot be laid down.
LAY_PAUSE_S, LAY_PAUSE_MAX_S = 1.0, 30.0
# Not before nothing has asked for its room for so long.
QUIET_S = 10.0

T = TypeVar("T")


class Ballast:
    """The room that is kept. Its state is the file alone, which every process of the gateway may remove, and one lays down.

    Args:
        root: the `cache_dir`.
        must_hold: raises OSError where the directory is not this gateway's, or not where it was.
        new_tmp: gives the name of a draft.
        log: gets a line when it is given up, and when it is laid down again.
    """

    def __init__(self, root: Path, must_hold: Callable[[], object], new_tmp: Callable[[], Path], log: Log) -> None:
        self._path = root / BALLAST
        self._must_hold = must_hold
        self._new_tmp = new_tmp
        self._failing = Repeated(log, "ballast given up", "ballast laid down", level="warning")
        self._lock = threading.Lock()
        # Bytes that it should have, decided once; 0 where there is to be none.
        self.size = 0
        self._is_decided = False
        self._given_up_at = -math.inf

    def expect(self, size: int | None = None) -> None:
        """From now on it has to be there, on a disk that is large enough for one; OSError if the disk cannot be asked.

        Args:
            size: what another process of the gateway has decided.
        """
        if size is not None:
            self.size, self._is_decided = size, True
        if self._is_decided:
            return
        size = min(disk.file_system(self._path.parent).total_bytes // _PART_OF_DISK, _MOST_BYTES)
        # Where a process may not write so much, one that is smaller is better than none.
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY:
            size = min(size, limit)
        self.size, self._is_decided = 0 if size < _LEAST_BYTES else size, True

    def is_given_up(self) -> bool:
        """Whether its room is needed for what waits, so that nothing may be received."""
        return self.size > 0 and not os.path.lexists(self._path)

    def give_up(self, error: OSError) -> bool:
        """Give its room to a step that has met `error`; whether that is worth taking the step once more."""
        if not is_full(error):
            return False
        with self._lock:
            # Also where there is nothing to give: what has found no room now is to find it when it tries again.
            self._given_up_at = time.monotonic()
            if not os.path.lexists(self._path):
                return False
            self._failing.failed(reason=str(error))
            try:
                # First what it holds: some file systems grant that where they grant no removal.
                disk.shorten(self._path, 0)
                disk.remove(self._path)
            except OSError:
                # The caller has the error that matters.
                return False
        return True

    def take(self, step: Callable[[], T]) -> T:
        """Take a step that can be taken again wherever it has failed, once more if it is the room that is missing."""
        try:
            return step()
        except OSError as error:
            if not self.give_up(error):
                raise
            return step()

    def lay(self) -> bool:
        """Lay it down, if it is not there or not as large as it should be; False, and a line in the log, if that cannot be."""
        try:
            self._must_hold()
        except OSError:
            # The watch over the directory logs that.
            return False
        try:
            self.expect()
            with self._lock:
                if self.size and not self._is_laid():
                    self._write()
        except OSError as error:
            with self._lock:
                self._failing.failed(reason=str(error))
            return False
        return True

    def _write(self) -> None:
        draft = self._new_tmp()
        try:
            disk.write_chunks(draft, (os.urandom(_WRITE_BYTES) for _ in range(self.size // _WRITE_BYTES)))
            disk.replace(draft, self._path)
        finally:
            disk.remove(draft)

    async def keep(self) -> None:
        """Lay it down again whenever it was given up and there is room; runs until it is cancelled."""
        pauses = Doubling(LAY_PAUSE_S, LAY_PAUSE_MAX_S)
        while True:
            await asyncio.sleep(pauses.next())
            if await asyncio.to_thread(self._look_after):
                pauses.reset()

    def _look_after(self) -> bool:
        """Whether it is there, or was laid down now."""
        if self.size and not self._is_laid():
            return time.monotonic() - self._given_up_at > QUIET_S and self.lay()
        with self._lock:
            self._failing.ended()
        return True

    def _is_laid(self) -> bool:
        try:
            return self._path.stat().st_size >= self.size // 2
        except FileNotFoundError:
            return False
