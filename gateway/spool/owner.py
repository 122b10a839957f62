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
import errno
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.core import disk
from gateway.core.errors import StartError
from gateway.telemetry.log import Log
from gateway.telemetry.repeated_failure import Repeated

LOCK, RECORD = ".lock", ".owner"
BEAT_S = 1.0
# The record of a gateway that lives changes within so long; where others have the same file system a network is between.
WATCH_S, WATCH_SHARED_S = 3.5, 10.0
# After so long without a look, as in a suspended machine, one comes before the next answer.
OLD_S = 2.0
_LOOK_S = 0.05
_END_S = 5.0
# The record is written over in place: always so long, so that nothing of a longer one is left behind it.
_RECORD_BYTES = 512
_MAX_HOST_CHARACTERS = 100
# Of file systems, as the kernel calls them: those that others may have mounted as well.
_SHARED_KINDS = ("fuse", "nfs", "cifs", "smb", "9p", "virtiofs", "ceph", "gfs2", "ocfs2", "lustre", "afs")

# What clients read; the log says more.
TAKEN = "cache_dir was taken by another gateway"
ELSEWHERE = "cache_dir is not the directory it was started on"
UNLOCKED = "the lock of cache_dir is gone"

Identity = tuple[int, int]


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


@dataclass(frozen=True, slots=True)
class _Fault:
    """Why nothing may be received or delivered: in a few words for clients, and whole for the log."""

    said: str
    detail: str


class Ownership:
    """The hold of one gateway on a `cache_dir`.

    Args:
        root: the `cache_dir`.
        owner: the id in the record; None for one of its own. A worker is given that of the process that has started it, and
            only looks.

    Attributes:
        owner: see above.
        fault: why nothing may be received or delivered, in words that clients may read; None as long as nothing is wrong.
    """

    def __init__(self, root: Path, owner: str | None = None) -> None:
        self._root = root
        self._path = root / RECORD
        self._writes = owner is None
        self.owner = owner or os.urandom(16).hex()
        self.fault: str | None = None
        self._detail = ""
        self._record = replace(_ours(), id=self.owner)
        # Of a gateway that is dead, and whose record could not be written over yet.
        self._dead: str | None = None
        self._lock: disk.Lock | None = None
        # Whether the file of the lock has this id; on a disk that was full it may not, and then the record decides.
        self._is_named = False
        if owner is not None:
            self._is_named = owner in disk.said_in(root / LOCK)
            found = self._read_or_none()
            self._dead = found.id if found is not None and found.id != owner else None
        self._places: dict[Path, int] = {}
        self._lost: _Fault | None = None
        self._looked_at = 0.0
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
        is_shared = _may_hide_locks(self._root)
        found = self._read_or_none()
        if found is not None:
            if not _is_surely_dead(found):
                self._wait_for_the_end_of(found, WATCH_SHARED_S if is_shared else WATCH_S)
            self._dead = found.id
        self._lock = lock
        self._is_named = lock.say()
        self._write()
        if is_shared:
            self._wait_for_a_second_opinion()
        self.know([self._root])
        self._start(self._write)

    def _wait_for_the_end_of(self, found: Record, patience_s: float) -> None:
        """Return once its record has not changed for so long that it must be dead."""
        # Counted, and not by a clock: one that stands still must not hold up the start.
        for _ in range(math.ceil(patience_s / _LOOK_S)):
            _pause(_LOOK_S)
            try:
                now = _read(self._path)
            except FileNotFoundError:
                # Given up: it has just stopped.
                return
            except (OSError, ValueError):
                # It is being written, or cannot be read at the moment.
                continue
            if now != found:
                raise StartError(
                    f"cache_dir {self._root} is in use by another gateway, {now}: its lock is not seen here, and its record is "
                    "written every second; stop that one, or give this one a cache_dir of its own"
                )

    def _wait_for_a_second_opinion(self) -> None:
        """Of two that start at the same time the later one has written over the id of the other, which sees that here."""
        _pause(BEAT_S)
        if (other := self._other()) is not None:
            raise StartError(f"cache_dir {self._root} was taken by another gateway that has just started, {other}")

    def know(self, directories: Iterable[Path], expected: Sequence[Identity] | None = None) -> None:
        """From now on these directories must be found where they are.

        Args:
            directories: beside those that are known already.
            expected: which the first of them have to be; an OSError if they are others.
        """
        for path in directories:
            if path not in self._places:
                self._places[path] = _open_directory(path)
        if expected is not None and self.identities()[: len(expected)] != list(expected):
            raise OSError(f"{ELSEWHERE}: {self._root}")

    def identities(self) -> list[Identity]:
        """Which directories are known, in their order."""
        return [(seen.st_dev, seen.st_ino) for seen in map(os.fstat, self._places.values())]

    def watch(self, log: Log, on_found: Callable[[], object] = lambda: None) -> None:
        """Look every second from now on, and log what is found.

        Args:
            log: see above.
            on_found: called, in the thread that looks, each time that the directory is where it was again.
        """
        failures = Repeated(log, "cache_dir lost", "cache_dir found again", level="error")
        was_lost = False

        def look() -> None:
            nonlocal was_lost
            try:
                is_lost = self.look() is not None
            except Exception as error:  # noqa: BLE001 (a defect of ours must not end the looking)
                log.error("defect", where="the look at cache_dir", reason=repr(error))
                return
            if is_lost:
                failures.failed(reason=self._detail)
                was_lost = True
                return
            failures.ended()
            if was_lost:
                was_lost = False
                on_found()
            if self._writes:
                self._write()

        self._end_thread()
        self._start(look)

    def give_up(self) -> None:
        """Remove the record, if it is this gateway's."""
        if self._end_thread() and self._writes and all(map(self.is_there, self._places)):
            found = self._read_or_none()
            if found is not None and found.id == self.owner:
                # What cannot be removed is found dead by the next start.
                with contextlib.suppress(OSError):
                    disk.remove_note(self._path)
        places, self._places = self._places, {}
        for descriptor in places.values():
            os.close(descriptor)
        self._lock = None

    def _start(self, step: Callable[[], object]) -> None:
        self._ends = ends = threading.Event()

        def run() -> None:
            while not ends.wait(BEAT_S):
                step()

        self._thread = threading.Thread(target=run, name="owner", daemon=True)
        self._thread.start()

    def _end_thread(self) -> bool:
        """End the thread that looks; False if it does not end, as on a disk that hangs: nothing must wait for that."""
        thread, self._thread = self._thread, None
        if thread is None:
            return True
        self._ends.set()
        thread.join(_END_S)
        return not thread.is_alive()

    # --- looking ----------------------------------------------------------------------------------------------------

    def look(self) -> str | None:
        """Look now, and give the fault there is; blocks."""
        with self._looking:
            found = self._lost or self._find()
            self._detail = "" if found is None else found.detail
            self.fault = None if found is None else found.said
            self._looked_at = _awake_s()
            return self.fault

    def check(self) -> None:
        """Raise the fault of the last look, if there is one, as an OSError."""
        if self.fault is not None:
            # Without the detail: this may come to be an answer.
            raise OSError(errno.ESTALE, self.fault)

    def must_hold(self) -> None:
        """Look now, and raise the fault there is, as `check` does; blocks."""
        self.look()
        self.check()

    def check_if_old(self) -> None:
        """Look first where the last look is old, as after the machine was suspended; then as `check`."""
        if self._looked_at and _awake_s() - self._looked_at > OLD_S:
            self.look()
        self.check()

    def is_there(self, directory: Path) -> bool:
        """Whether the path of a directory leads to the one that it led to at the start."""
        descriptor = self._places.get(directory)
        return descriptor is None or _leads_to(directory, descriptor) is None

    def _find(self) -> _Fault | None:
        for directory, descriptor in self._places.items():
            reason = _leads_to(directory, descriptor)
            if reason is not None and not self._made_again(directory):
                return _Fault(
                    ELSEWHERE,
                    f"{ELSEWHERE}: {directory}: {reason}; undo what was mounted or moved there, or start the gateway again",
                )
        if (other := self._other()) is not None:
            self._lost = _Fault(TAKEN, f"{TAKEN}, {other}: stop one of them, and start this one again ({self._root})")
            return self._lost
        if self._lock is not None and not self._lock.is_in_place():
            return self._take_lock_again(self._lock)
        return None

    def _made_again(self, directory: Path) -> bool:
        """Whether it was an empty directory that a clean-up has removed, and that is there again now.

        Another process of this gateway, or a claim, may have made it.
        """
        if directory == self._root or not _is_removed(self._places[directory]) or not self.is_there(self._root):
            return False
        try:
            disk.make_directory(directory)
            made = _open_directory(directory)
        except OSError:
            return False
        if os.fstat(made).st_dev != os.fstat(self._places[self._root]).st_dev:
            os.close(made)
            return False
        old, self._places[directory] = self._places[directory], made
        os.close(old)
        return True

    def _other(self) -> str | None:
        """The gateway that has started here after this one, if there is one.

        What the file of the lock says decides, since each start writes it once, while two write the record over each other.
        """
        record = self._read_or_none()
        is_mine = record is None or record.id in (self.owner, self._dead)
        said = disk.said_in(self._root / LOCK) if self._is_named else ""
        if self.owner in said or (not said and is_mine):
            return None
        return f"the one with pid {said.split()[0]}" if is_mine else str(record)

    def _take_lock_again(self, lock: disk.Lock) -> _Fault | None:
        """The file of the lock was removed, or replaced, by a clean-up."""
        try:
            is_taken = lock.renew()
        except OSError as error:
            return _Fault(UNLOCKED, f"{UNLOCKED}, and cannot be made again: {error.strerror or error}")
        if is_taken or self.owner in disk.said_in(self._root / LOCK):
            return None
        self._lost = _Fault(TAKEN, f"{TAKEN}, which has locked {self._root} since this one's .lock was removed: stop one of them")
        return self._lost

    def _write(self) -> None:
        self._record = replace(self._record, beat=self._record.beat + 1, time=_now())
        # A full disk, say. Then the lock has to do; the record is tried again a second later.
        with contextlib.suppress(OSError):
            disk.note(self._path, msgspec.json.encode(self._record).ljust(_RECORD_BYTES - 1) + b"\n")

    def _read_or_none(self) -> Record | None:
        """The record that stands there; None if there is none, or it cannot be read."""
        try:
            return _read(self._path)
        except (OSError, ValueError):
            return None


def _pause(seconds: float) -> None:
    """A sleep that a clock which somebody has made stand still does not hold up, nor end with an error."""
    threading.Event().wait(seconds)


def _read(path: Path) -> Record:
    """Read a record; ValueError if it says nothing."""
    return msgspec.json.decode(disk.read_note(path, _RECORD_BYTES), type=Record)


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _leads_to(path: Path, descriptor: int) -> str | None:
    """Why a path does not lead to an open directory; None if it does."""
    try:
        return None if os.path.samestat(os.stat(path), os.fstat(descriptor)) else "it leads to another directory"
    except OSError as error:
        return error.strerror or str(error)


def _is_removed(descriptor: int) -> bool:
    """Whether an open directory has no name any more."""
    try:
        return os.fstat(descriptor).st_nlink == 0
    except OSError:
        # Of a network, which does not know it any more.
        return True


def _awake_s() -> float:
    """Seconds that go on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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
