"""Durable changes to the file system: the only file that renames, removes or syncs.

Every function raises `OSError` as the kernel gave it; what that means for a request is decided by the caller.
A change of a name is durable only after `sync_directory` of the directory that holds it: callers say when they pay for it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.core.errors import StartError

COPY_CHUNK_BYTES = 1 << 20
# Linux refuses a writev of more buffers than this (IOV_MAX).
MAX_WRITEV_BUFFERS = 1024
# How long a lock is waited for whose holder is dead, and how often it is looked at.
_ORPHANS_S, _LOOK_S = 10.0, 0.02
# What Linux allows; a file system may say more, and mean characters.
_NAME_MAX = 255
# Of what the file of a lock says.
_SAID_BYTES = 128


def make_directory(path: Path) -> None:
    """Create a directory (mode 0700) if it is not there, its parents too, each durably."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create(path: Path) -> int:
    """Open a new file (mode 0600) to write to its end, and return its descriptor; `FileExistsError` if the name is taken.

    It can be read as well: of a file that loses its name nothing else is left.
    """
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_all(descriptor: int, buffers: Sequence[bytes | memoryview]) -> int:
    """Write every byte of the buffers, however short the kernel's writes are; return the number of bytes."""
    total = 0
    for first in range(0, len(buffers), MAX_WRITEV_BUFFERS):
        window: list[bytes | memoryview] = list(buffers[first : first + MAX_WRITEV_BUFFERS])
        while window:
            written = os.writev(descriptor, window)
            total += written
            window = _rest(window, written)
    return total


def _rest(window: list[bytes | memoryview], written: int) -> list[bytes | memoryview]:
    for index, buffer in enumerate(window):
        if written < len(buffer):
            return [memoryview(buffer)[written:], *window[index + 1 :]]
        written -= len(buffer)
    return []


def sync(descriptor: int) -> None:
    """Make the bytes of a file durable, and its length with them."""
    os.fdatasync(descriptor)


def begin_writing(descriptor: int, start: int, size: int) -> None:
    """Have the kernel begin to write a part of a file, so that the sync at its end finds less to do; waits for nothing.

    The advice is that the pages will not be needed: dirty ones are sent to the disk for that, and stay until they are clean.
    """
    # A file system that takes no advice keeps the bytes all the same, and what it cannot write the sync reports.
    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_DONTNEED)


def truncate(descriptor: int, size: int) -> None:
    """Cut a file back to `size` bytes, durably."""
    os.ftruncate(descriptor, size)
    os.fsync(descriptor)


def shorten(path: Path, size: int) -> None:
    """Cut a file that nobody has open back to `size` bytes, durably."""
    descriptor = reopen(path)
    try:
        truncate(descriptor, size)
    finally:
        os.close(descriptor)


def truncate_unsynced(descriptor: int, size: int) -> None:
    """Cut a file back to `size` bytes for every reader, though a power cut may still bring the rest back."""
    os.ftruncate(descriptor, size)


def reopen(path: Path) -> int:
    """Open an existing file as `create` opens a new one."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)


def close(descriptor: int) -> None:
    """Close a descriptor; what had to be durable was synced before."""
    os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and sync its bytes; its name is not durable yet.

    A file that could not be written whole is removed again, so that a full disk leaves no stump behind.
    """
    write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    """Like `write_file`, of what comes in chunks."""
    descriptor = create(path)
    try:
        for chunk in chunks:
            write_all(descriptor, [chunk])
        sync(descriptor)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def place(source: Path, target: Path) -> None:
    """Rename, refusing to replace: `FileExistsError` if the target is there.

    The check and the rename are two calls. Nothing comes between them: the spool's lock keeps other gateways out, and a
    name holds the pid of the one process that may give it.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{target} is already there")
    os.rename(source, target)


def overwrite(path: Path, data: bytes) -> None:
    """Write over the beginning of a file in place, and sync it: for a few bytes that are written as one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append(path: Path, data: bytes) -> None:
    """Write to the end of a file that is there, and sync it; what an error leaves of it is at that end."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        write_all(descriptor, [data])
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def note(path: Path, data: bytes) -> None:
    """Write a few bytes over the beginning of a file that need not outlive the machine; it is made if it is not there.

    It is closed each time, so that other machines see it too where the file system is one of a network.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        os.pwrite(descriptor, data, 0)
    finally:
        os.close(descriptor)


def read_note(path: Path, size: int) -> bytes:
    """Read the beginning of such a file, opened anew; never wait for what is no regular file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.pread(descriptor, size, 0)
    finally:
        os.close(descriptor)


def remove_note(path: Path) -> None:
    """Remove such a file, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def is_at(path: Path, descriptor: int, size: int | None = None) -> bool:
    """Whether an open file is the one that its path leads to, and has this size if one is given.

    An OSError other than that there is nothing says neither yes nor no.
    """
    opened = os.fstat(descriptor)
    try:
        there = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return is_same(there, opened) and size in (None, opened.st_size)


def size_of(descriptor: int) -> int:
    """Bytes of an open file."""
    return os.fstat(descriptor).st_size


def end_of_last_line(descriptor: int, size: int) -> int:
    """Where the last whole line ends within the first `size` bytes of an open file; 0 if there is none."""
    end = size
    while end > 0:
        begin = max(0, end - COPY_CHUNK_BYTES)
        found = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    """Whether two looks are at one file. Some file systems of networks and of FUSE number a file anew when they forget it."""
    return os.path.samestat(one, other) or (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def replace(source: Path, target: Path) -> None:
    """Rename over an older version of the same content."""
    os.replace(source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; `FileExistsError`, decided by the kernel, if the name is taken."""
    os.link(source, target)


def remove(path: Path) -> None:
    """Remove a file; one that is gone already is no error, so that a removal can be repeated after a crash."""
    path.unlink(missing_ok=True)


def remove_directory(path: Path) -> None:
    """Remove an empty directory; one that is gone already is no error."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return


def copy_part(source: Path, target: Path, start: int, size: int) -> None:
    """Copy `size` bytes from `start` into a new file and sync it; its name is not durable yet."""
    write_chunks(target, read_chunks(source, size, start))


def copy_open(descriptor: int, target: Path, size: int) -> None:
    """Copy the first `size` bytes of an open file, which may have no name any more, into a new one, and sync that."""
    write_chunks(target, _chunks_of_open(descriptor, size))


def _chunks_of_open(descriptor: int, size: int) -> Iterator[bytes]:
    at = 0
    while at < size:
        chunk = os.pread(descriptor, min(COPY_CHUNK_BYTES, size - at), at)
        if not chunk:
            raise OSError(f"an open file ended {size - at} bytes early")
        at += len(chunk)
        yield chunk


def longest_name(directory: Path) -> int:
    """Of how many bytes a name in a directory may be: 255 nearly everywhere, 143 on eCryptfs and some network storage."""
    try:
        return min(os.pathconf(directory, "PC_NAME_MAX"), _NAME_MAX)
    except OSError:
        return _NAME_MAX


def is_file(path: Path) -> bool:
    """Whether a name is that of a regular file: no link, no directory, nothing that a reader would wait at."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def is_directory(path: Path) -> bool:
    """Whether a name is that of a directory, and not of a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def open_file(path: Path) -> io.FileIO:
    """Open a regular file for reading; an OSError, and never a wait, for whatever else stands there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return io.FileIO(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_chunks(path: Path, size: int | None = None, start: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a file from `start`, `size` of them or all, in chunks of at most 1 MiB."""
    with open_file(path) as file:
        file.seek(start)
        left = size
        while left is None or left > 0:
            chunk = file.read(COPY_CHUNK_BYTES if left is None else min(left, COPY_CHUNK_BYTES))
            if not chunk:
                if left:
                    raise OSError(f"{path} ended {left} bytes early")
                return
            if left is not None:
                left -= len(chunk)
            yield chunk


def names(directory: Path) -> Iterator[str]:
    """Yield the names in a directory without holding them all; none if the directory is missing."""
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                yield entry.name
    except FileNotFoundError:
        return


def sync_files(paths: Iterable[Path]) -> None:
    """Make the bytes of files durable that someone else wrote."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class FileSystem:
    """What an ordinary process may still do on a file system.

    Attributes:
        free_bytes: so many may be written.
        free_inodes: so many files may be created; None where the file system has no bound of its own (btrfs, some of networks).
        is_read_only: whether it is mounted so, or was made so by the kernel after an error.
        total_bytes: so many it has, free or not.
    """

    free_bytes: int
    free_inodes: int | None = None
    is_read_only: bool = False
    total_bytes: int = 0


def file_system(path: Path) -> FileSystem:
    """Ask the file system that holds `path`."""
    status = os.statvfs(path)
    return FileSystem(
        free_bytes=status.f_bavail * status.f_frsize,
        # One that counts no inodes at all says 0 of 0.
        free_inodes=status.f_favail if status.f_files else None,
        is_read_only=bool(status.f_flag & os.ST_RDONLY),
        total_bytes=status.f_blocks * status.f_frsize,
    )


class Lock:
    """The hold of one program on a directory, given up by the kernel when the last process ends that has its descriptor.

    Args:
        path: of the file that is locked; made if it is not there.
        owner: what the file is to say beside the number of this process, once `say` is called.
    """

    def __init__(self, path: Path, owner: str = "") -> None:
        self._path = path
        self._said = f"{os.getpid()} {owner}".strip()
        self.descriptor = _open_lock(path)
        until = time.monotonic() + _ORPHANS_S
        while not _is_taken(self.descriptor):
            holder = (said_in(path).split() or [""])[0]
            # Where the holder is dead its workers have it, which go as soon as they see that. Without a number it lives.
            if not holder.isdecimal() or is_alive(int(holder)) or time.monotonic() > until:
                os.close(self.descriptor)
                raise StartError(
                    f"{path.parent} is in use by another gateway (pid {holder or 'unknown'}): "
                    "stop that one, or give this one a cache_dir of its own"
                )
            time.sleep(_LOOK_S)

    def say(self) -> bool:
        """Write whose it is: for a person, for a start that waits for orphans, and for a holder that does not see this lock.

        A full disk does not keep the lock from being held; then the file says what it said before, and this is false.
        """
        return self._say(self.descriptor)

    def _say(self, descriptor: int) -> bool:
        said = f"{self._said}\n".encode("ascii")
        try:
            os.pwrite(descriptor, said, 0)
            os.ftruncate(descriptor, len(said))
        except OSError:
            return False
        return True

    def is_in_place(self) -> bool:
        """Whether another program that wants the directory would meet this lock; a disk that does not answer speaks for it."""
        try:
            return is_at(self._path, self.descriptor)
        except OSError:
            return True

    def renew(self) -> bool:
        """Hold the file that stands there now, or a new one, in place of one that was removed; false if another holds it."""
        descriptor = _open_lock(self._path)
        try:
            if not _is_taken(descriptor):
                return False
            self._say(descriptor)
            # Under the same number: workers that are started later inherit it.
            os.dup2(descriptor, self.descriptor, inheritable=False)
        finally:
            os.close(descriptor)
        return True

    def release(self) -> None:
        """Give the directory up."""
        os.close(self.descriptor)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


def _is_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def said_in(path: Path) -> str:
    """What the file of a lock says: the number of a process, and perhaps its owner; empty if it cannot be read."""
    try:
        return read_note(path, _SAID_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""


def try_lock(path: Path) -> None:
    """Lock a file that is there, as `Lock` does, and give it up; raise what the file system says to that."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Whether a process other than this one has this number, and runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return pid != os.getpid() and not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process is dead and only its parent has not asked for it yet, as under a supervisor that never does."""
    try:
        # The state is the first word behind the name, which may hold anything but ends at the last bracket.
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"Z", b"X")
