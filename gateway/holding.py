"""Whether `cache_dir` is still this gateway's alone, and still the directory that it was started on.

A lock alone does not say so. Through two mounts of a FUSE file system, on NFS without locking, on CIFS, 9p and others, each of
two programs gets it; and a cleaner of old files removes what it stands on. So beside the lock there is a record of the owner,
written again every second: a start that finds the record of another gateway changing goes no further. One that gets through
all the same writes its id into the file of the lock, and the gateway of before, which finds another's id there, receives and
delivers nothing any more.

Paths may come to lead elsewhere, too: something is mounted on the directory, or it is moved and another one takes its place.
Descriptors of the directories are kept, and compared with what their paths lead to.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway import disk
from gateway.errors import StartError
from gateway.log import Log
from gateway.repeated import Repeated

LOCK, RECORD = ".lock", ".owner"
BEAT_S = 1.0
# The record of a gateway that lives changes within so long, also on a disk that is slow for a moment.
WATCH_S = 3.5
_LOOK_S = 0.05
_END_S = 5.0
# The record is written over in place: always so long, so that nothing of a longer one is left behind it.
_RECORD_BYTES = 512
_MAX_HOST_CHARACTERS = 100
# Of file systems, as the kernel calls them: those that others may have mounted as well.
_SHARED_KINDS = ("fuse", "nfs", "cifs", "smb", "9p", "virtiofs", "ceph", "gfs2", "ocfs2", "lustre", "afs")


@dataclass(frozen=True, slots=True)
class Record:
    """Whose the directory is.

    Attributes:
        id: random, of one gateway from its start to its end.
        host, pid: where it runs.
        boot, namespace: of the machine and of the process ids; where both are ours, the pid says whether it lives.
        beat: counts how often it was written.
        time: when, for a person.
    """

    id: str
    host: str
    pid: int
    boot: str
    namespace: str
    beat: int
    time: str

    def __str__(self) -> str:
        return f"the one on {self.host} with pid {self.pid}"


class Holding:
    """The hold of one gateway on a `cache_dir`.

    Args:
        root: the `cache_dir`.
        owner: the id in the record; None for one of its own. A worker is given that of the process that has started it, and
            only looks.

    Attributes:
        owner: see above.
        fault: why nothing may be received or delivered, None as long as nothing speaks against it.
    """

    def __init__(self, root: Path, owner: str | None = None) -> None:
        self._root = root
        self._path = root / RECORD
        self._writes = owner is None
        self.owner = owner or os.urandom(16).hex()
        self.fault: str | None = None
        self._record = replace(_ours(), id=self.owner)
        self._lock: disk.Lock | None = None
        self._places: dict[Path, int] = {}
        self._is_lost = False
        # Where the disk is full it may not be: then the record decides.
        self._is_named = self._has_its_id_in_the_lock()
        # For the thread that looks every second, and those that look before they answer.
        self._looking = threading.RLock()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None

    # --- start and end ----------------------------------------------------------------------------------------------

    def take(self, lock: disk.Lock) -> None:
        """Become the owner, and say so every second; StartError if another gateway is.

        Args:
            lock: of the directory, held.
        """
        found = _read(self._path)
        if found is not None and not _is_surely_dead(found):
            self._wait_for_the_end_of(found)
        self._lock = lock
        lock.say()
        self._is_named = self._has_its_id_in_the_lock()
        self._write()
        if _may_hide_locks(self._root):
            self._wait_for_a_second_opinion()
        self._thread = threading.Thread(target=self._run, args=(lambda: None,), name="owner", daemon=True)
        self._thread.start()

    def _wait_for_the_end_of(self, found: Record) -> None:
        """Return once its record has not changed for so long that it must be dead."""
        ends = time.monotonic() + WATCH_S
        while time.monotonic() < ends:
            time.sleep(_LOOK_S)
            now = _read(self._path)
            if now is None:
                # Given up: it has just stopped.
                return
            if now != found:
                raise StartError(
                    f"cache_dir {self._root} is in use by another gateway, {now}: its lock is not seen here, and its record is "
                    "written every second; stop that one, or give this one a cache_dir of its own"
                )

    def _wait_for_a_second_opinion(self) -> None:
        """Of two that start at the same time the later one has written over the name of the other, which sees that here."""
        time.sleep(BEAT_S)
        if (other := self._other()) is not None:
            raise StartError(f"cache_dir {self._root} was taken by another gateway that has just started, {other}")

    def _has_its_id_in_the_lock(self) -> bool:
        return self.owner in disk.said_in(self._root / LOCK)

    def _other(self) -> str | None:
        """The gateway that has started here after this one, if there is one.

        What the file of the lock says decides, since each start writes it once, while two write the record over each other.
        """
        record = _read(self._path)
        is_mine = record is None or record.id == self.owner
        said = disk.said_in(self._root / LOCK) if self._is_named else ""
        if self.owner in said or (not said and is_mine):
            return None
        return f"the one with pid {said.split()[0]}" if is_mine else str(record)

    def know(self, directories: Iterable[Path]) -> None:
        """From now on these directories must be found where they are."""
        self._places = {path: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) for path in directories}

    def watch(self, log: Log, on_found: Callable[[], bool] = lambda: True) -> None:
        """Look every second from now on, and log what is found.

        Args:
            log: see above.
            on_found: called once the directory is where it was again, and each second after that until it is true.
        """
        told = Repeated(log, "cache_dir lost", "cache_dir found again", level="error")
        is_settled = True

        def look() -> None:
            nonlocal is_settled
            if (fault := self.look()) is not None:
                told.failed(reason=fault)
                is_settled = False
                return
            told.ended()
            is_settled = is_settled or on_found()

        self._end_thread()
        self._thread = threading.Thread(target=self._run, args=(look,), name="owner", daemon=True)
        self._thread.start()

    def give_up(self) -> None:
        """Remove the record, if it is this gateway's."""
        self._end_thread()
        if self._writes and all(map(self.is_there, self._places)):
            found = _read(self._path)
            if found is not None and found.id == self.owner:
                # What cannot be removed is found dead by the next start.
                with contextlib.suppress(OSError):
                    disk.remove_note(self._path)
        places, self._places = self._places, {}
        for descriptor in places.values():
            os.close(descriptor)
        self._lock = None

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._ends.set()
            # A disk that hangs must not hold up the stop.
            self._thread.join(_END_S)
            self._thread = None
            self._ends.clear()

    def _run(self, look: Callable[[], object]) -> None:
        while not self._ends.wait(BEAT_S):
            look()
            if self._writes and self.fault is None:
                self._write()

    # --- looking ----------------------------------------------------------------------------------------------------

    def look(self) -> str | None:
        """Look now, and give the fault there is."""
        with self._looking:
            self.fault = self._find()
            return self.fault

    def check(self) -> None:
        """Raise the fault of the last look, if there is one, as an OSError."""
        if self.fault is not None:
            raise OSError(self.fault)

    def is_there(self, directory: Path) -> bool:
        """Whether the path of a directory leads to the one that it led to at the start."""
        descriptor = self._places.get(directory)
        if descriptor is None:
            return True
        try:
            return os.path.samestat(os.stat(directory), os.fstat(descriptor))
        except OSError:
            return False

    def _find(self) -> str | None:
        if self._is_lost:
            # Whoever has it now has changed it meanwhile: what this process knows of it is of the past.
            return self.fault
        for directory in self._places:
            if not self.is_there(directory):
                return (
                    f"cache_dir {self._root} is not the directory it was started on ({directory} leads elsewhere): undo what was "
                    "mounted or moved there, or start the gateway again"
                )
        if (other := self._other()) is not None:
            self._is_lost = True
            return f"cache_dir {self._root} was taken by another gateway, {other}: stop one of them, and start this one again"
        if self._lock is not None and not self._lock.is_in_place():
            return self._take_lock_again(self._lock)
        return None

    def _take_lock_again(self, lock: disk.Lock) -> str | None:
        """The file of the lock was removed, or replaced, by somebody who cleans up."""
        try:
            is_taken = lock.renew()
        except OSError as error:
            return f"the lock of cache_dir {self._root} is gone, and cannot be made again: {error.strerror or error}"
        if is_taken:
            return None
        self._is_lost = True
        return f"cache_dir {self._root} is locked by another gateway, since this one's .lock was removed: stop one of them"

    def _write(self) -> None:
        self._record = replace(self._record, beat=self._record.beat + 1, time=_now())
        # A full disk, say. Then the lock has to do; the record is tried again a second later.
        with contextlib.suppress(OSError):
            disk.note(self._path, msgspec.json.encode(self._record).ljust(_RECORD_BYTES - 1) + b"\n")


def _read(path: Path) -> Record | None:
    """The record that stands there; None if there is none, or it cannot be read."""
    try:
        return msgspec.json.decode(disk.read_note(path, _RECORD_BYTES), type=Record)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _may_hide_locks(path: Path) -> bool:
    """Whether another mount, or another machine, may hold a lock on the same directory that is not seen here."""
    try:
        device = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == number]
    return any(kind.startswith(_SHARED_KINDS) for kind in kinds)


def _ours() -> Record:
    return Record(
        id="",
        host=socket.gethostname()[:_MAX_HOST_CHARACTERS],
        pid=os.getpid(),
        boot=_said_by(lambda: Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()),
        namespace=_said_by(lambda: os.readlink("/proc/self/ns/pid")),
        beat=0,
        time=_now(),
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _said_by(ask: Callable[[], str]) -> str:
    """What the kernel says, empty where it says nothing."""
    try:
        return ask()
    except OSError:
        return ""


def _is_surely_dead(found: Record) -> bool:
    """Whether its process is known to be gone; of another machine, or another container, that cannot be known."""
    ours = _ours()
    is_near = bool(found.boot and found.namespace) and (found.boot, found.namespace) == (ours.boot, ours.namespace)
    return is_near and not disk.is_alive(found.pid)
