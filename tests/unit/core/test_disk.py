"""A change of the disk is whole and durable when it says so, and never takes something else away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from gateway.core import disk
from gateway.core.errors import StartError
from testkit.deadlines import since
from testkit.spool import Trace


def mode(path: Path) -> int:
    """Give the permissions of a path."""
    return path.stat().st_mode & 0o777


def failing(*_: object) -> int:
    """Fail as a broken disk does."""
    raise OSError(errno.EIO, "Input/output error")


# --- writing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 1024, 1025, 3000])
def test_every_buffer_is_written(tmp_path: Path, count: int) -> None:
    """More buffers than the kernel takes at once are written all, in their order."""
    buffers = [b"%d\n" % number for number in range(count)]
    descriptor = disk.create(tmp_path / "a")
    assert disk.write_all(descriptor, buffers) == sum(map(len, buffers))
    disk.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"".join(buffers)


@pytest.mark.parametrize("most", [1, 3, 4, 5, 1000])
def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Where the kernel takes only some of the bytes, the rest follows, and no byte comes twice."""
    writev: Callable[[int, Sequence[bytes]], int] = os.writev

    def short(descriptor: int, buffers: Sequence[bytes]) -> int:
        return os.write(descriptor, b"".join(buffers)[:most])

    buffers = [b"abcd", b"", b"e", b"fghijk" * 50]
    descriptor = disk.create(tmp_path / "a")
    monkeypatch.setattr(os, "writev", short)
    assert disk.write_all(descriptor, buffers) == 305
    monkeypatch.setattr(os, "writev", writev)
    disk.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"".join(buffers)


def test_create_refuses_a_taken_name(tmp_path: Path) -> None:
    """A new file is new: what has the name already stays as it is."""
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        disk.create(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"


def test_permissions_are_the_owners_alone(tmp_path: Path) -> None:
    """Files are 0600 and directories 0700, even where the machine would give them to everybody."""
    before = os.umask(0)
    try:
        disk.write_file(tmp_path / "a", b"x")
        disk.make_directory(tmp_path / "b" / "c")
        disk.copy_part(tmp_path / "a", tmp_path / "d", 0, 1)
        disk.Lock(tmp_path / "e").release()
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in "ade"] == [0o600] * 3
    assert [mode(tmp_path / "b"), mode(tmp_path / "b" / "c")] == [0o700] * 2


def test_write_file_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A written file's bytes are on the disk when the call returns."""
    trace = Trace(monkeypatch, tmp_path)
    disk.write_file(tmp_path / "a", b"x")
    assert trace.steps == ["create a", "write_all a", "sync a", "write_file a"]


@pytest.mark.parametrize("step", ["write_all", "sync"])
def test_a_file_that_cannot_be_written_leaves_no_stump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """After a failed write or sync neither a new file nor a copy is there, and what was copied still is."""
    (tmp_path / "source").write_bytes(b"12345")
    monkeypatch.setattr(disk, step, failing)
    with pytest.raises(OSError, match="Input"):
        disk.write_file(tmp_path / "a", b"x")
    with pytest.raises(OSError, match="Input"):
        disk.copy_part(tmp_path / "source", tmp_path / "a", 0, 5)
    assert os.listdir(tmp_path) == ["source"]


# --- names -------------------------------------------------------------------------------------------------------


def test_place_never_replaces(tmp_path: Path) -> None:
    """A rename to a taken name is refused, and both files stay as they are."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        disk.place(tmp_path / "a", tmp_path / "b")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"a", "b": b"b"}


def test_place_takes_a_dangling_link_for_a_name(tmp_path: Path) -> None:
    """A name that leads nowhere is taken all the same."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        disk.place(tmp_path / "a", tmp_path / "b")


def test_link_never_replaces(tmp_path: Path) -> None:
    """A second name is refused where the name is taken."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        disk.link(tmp_path / "a", tmp_path / "b")
    disk.link(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"a"


def test_removals_can_be_repeated(tmp_path: Path) -> None:
    """Removing what a crash had already removed is no error."""
    (tmp_path / "a").touch()
    (tmp_path / "b").mkdir()
    for _ in range(2):
        disk.remove(tmp_path / "a")
        disk.remove_directory(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_only_an_empty_directory_is_removed(tmp_path: Path) -> None:
    """A directory with something in it is not removed."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").touch()
    with pytest.raises(OSError, match="not empty"):
        disk.remove_directory(tmp_path / "b")
    assert (tmp_path / "b" / "c").exists()


def test_directories_are_made_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new directory's entry is synced in its parent, the highest first, and one that is there costs nothing."""
    trace = Trace(monkeypatch, tmp_path)
    disk.make_directory(tmp_path / "a" / "b")
    synced = [step for step in trace.steps if step.startswith("sync")]
    assert synced == ["sync_directory .", "sync_directory a"]
    trace.steps.clear()
    disk.make_directory(tmp_path / "a" / "b")
    assert trace.steps == ["make_directory a/b"]


def test_names_of_a_missing_directory_are_none(tmp_path: Path) -> None:
    """A directory that is not there has no names in it."""
    assert list(disk.names(tmp_path / "missing")) == []
    (tmp_path / "a").touch()
    assert list(disk.names(tmp_path)) == ["a"]


# --- parts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "size"), [(0, 0), (0, 7), (3, 4), (2, 3)])
def test_a_part_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: int, size: int) -> None:
    """A copy holds the bytes that were asked for, in chunks of bounded size."""
    monkeypatch.setattr(disk, "COPY_CHUNK_BYTES", 2)
    (tmp_path / "a").write_bytes(b"0123456")
    disk.copy_part(tmp_path / "a", tmp_path / "b", start, size)
    assert (tmp_path / "b").read_bytes() == b"0123456"[start : start + size]
    assert max((len(chunk) for chunk in disk.read_chunks(tmp_path / "a")), default=0) <= 2


def test_a_copy_of_what_is_not_there_fails(tmp_path: Path) -> None:
    """A copy that would come out short is an error and leaves nothing."""
    (tmp_path / "a").write_bytes(b"0123")
    with pytest.raises(OSError, match="ended 2 bytes early"):
        disk.copy_part(tmp_path / "a", tmp_path / "b", 0, 6)
    assert not (tmp_path / "b").exists()


def test_a_file_is_cut_back(tmp_path: Path) -> None:
    """What is behind the new end is gone, and writing goes on there."""
    (tmp_path / "a").write_bytes(b"0123456")
    disk.shorten(tmp_path / "a", 5)
    descriptor = disk.reopen(tmp_path / "a")
    disk.truncate(descriptor, 3)
    disk.write_all(descriptor, [b"x"])
    disk.truncate_unsynced(descriptor, 4)
    disk.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b"012x"


def test_a_file_system_is_what_the_kernel_says(tmp_path: Path) -> None:
    """The free bytes and inodes are those of an ordinary process."""
    status = os.statvfs(tmp_path)
    seen = disk.file_system(tmp_path)
    assert 0 < seen.free_bytes <= status.f_bfree * status.f_frsize
    assert seen.free_inodes is None or 0 < seen.free_inodes <= status.f_ffree
    assert not seen.is_read_only


@pytest.mark.parametrize(("files", "free", "told"), [(0, 0, None), (10, 0, 0), (10, 7, 7)])
def test_a_file_system_that_counts_no_inodes_has_no_bound(files: int, free: int, told: int | None, tmp_path: Path) -> None:
    """Where the kernel says 0 inodes of 0 there is no such bound; 0 of 10 is none left."""

    def saying(path: Path) -> object:
        return SimpleNamespace(
            f_bavail=1, f_blocks=3, f_frsize=4096, f_files=files, f_favail=free, f_flag=os.ST_RDONLY | os.ST_NOSUID
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "statvfs", saying)
        assert disk.file_system(tmp_path) == disk.FileSystem(4096, told, is_read_only=True, total_bytes=3 * 4096)


# --- the lock ----------------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second holder is refused, with the pid of the first, until the first gives up."""
    monkeypatch.setattr(disk, "_ORPHANS_S", 0.05)
    first = disk.Lock(tmp_path / ".lock", "ab")
    first.say()
    assert disk.said_in(tmp_path / ".lock") == f"{os.getpid()} ab"
    with pytest.raises(StartError, match=rf"pid {os.getpid()}\)"):
        disk.Lock(tmp_path / ".lock")
    first.release()
    disk.Lock(tmp_path / ".lock").release()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A process that is killed gives its lock up, and its longer pid leaves no digits behind."""
    (tmp_path / ".lock").write_bytes(b"99999999999999\n")
    script = (
        "import os, pathlib, sys\nfrom gateway.core import disk\n"
        "lock = disk.Lock(pathlib.Path(sys.argv[1]))\nlock.say()\nos.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / ".lock")], check=False)
    assert ended.returncode == -9
    lock = disk.Lock(tmp_path / ".lock")
    lock.say()
    assert (tmp_path / ".lock").read_bytes() == b"%d\n" % os.getpid()
    lock.release()


HOLD = """\
import os, pathlib, subprocess, sys
from gateway.core import disk
lock = disk.Lock(pathlib.Path(sys.argv[1]))
lock.say()
# It has the lock for as long as somebody holds the other end of its input.
subprocess.Popen(["cat"], stdin=0, stdout=subprocess.DEVNULL, pass_fds=[lock.descriptor])
print("held", flush=True)
if sys.argv[2] != "lives":
    os.kill(os.getpid(), 9)
sys.stdin.read()
"""


@contextmanager
def held_with_another(path: Path, then: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lock, and has passed it on to another one, which ends when the input is closed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), then], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        if then == "dies":
            assert holder.wait(60) == -9
        elif then == "is left dead":
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        yield holder
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(60)


@pytest.mark.parametrize("then", ["dies", "is left dead"])
def test_a_lock_waits_for_the_workers_of_a_dead_holder(tmp_path: Path, then: str) -> None:
    """Where the holder is dead, asked for by its parent or not, another process's end is waited for that has its lock."""
    with held_with_another(tmp_path / ".lock", then) as holder:
        assert holder.stdin is not None
        letting_go = threading.Timer(0.3, holder.stdin.close)
        begun = time.monotonic()
        letting_go.start()
        disk.Lock(tmp_path / ".lock").release()
        assert time.monotonic() - begun >= 0.25
        letting_go.join()


def test_a_lock_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not go, though the holder is dead, is an error that names the holder."""
    monkeypatch.setattr(disk, "_ORPHANS_S", 0.2)
    with (
        held_with_another(tmp_path / ".lock", "dies") as holder,
        pytest.raises(StartError, match=rf"in use by another gateway \(pid {holder.pid}\)"),
    ):
        disk.Lock(tmp_path / ".lock")


def test_a_lock_does_not_wait_while_its_holder_lives(tmp_path: Path) -> None:
    """A running gateway is told of at once."""
    with held_with_another(tmp_path / ".lock", "lives") as holder:
        begun = time.monotonic()
        with pytest.raises(StartError, match=rf"in use by another gateway \(pid {holder.pid}\)"):
            disk.Lock(tmp_path / ".lock")
        assert since(begun) < disk._ORPHANS_S / 2


def test_who_inherits_a_lock_holds_it(tmp_path: Path) -> None:
    """Who has given it up does not have it for others, as long as a process has its descriptor."""
    lock = disk.Lock(tmp_path / ".lock")
    other = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor])
    lock.release()
    probe = os.open(tmp_path / ".lock", os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other.communicate(timeout=60)
    fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(probe)


# --- descriptors --------------------------------------------------------------------------------------------------


def _failing(*_: object, **__: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


STEPS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "sync_directory": ("fsync", lambda path: disk.sync_directory(path.parent)),
    "shorten": ("fsync", lambda path: disk.shorten(path, 0)),
    "write_file": ("fdatasync", lambda path: disk.write_file(path.with_name("new"), b"x")),
    "write_chunks": ("writev", lambda path: disk.write_chunks(path.with_name("new"), [b"x"])),
    "overwrite": ("pwrite", lambda path: disk.overwrite(path, b"y")),
    "overwrite, sync": ("fsync", lambda path: disk.overwrite(path, b"y")),
    "append": ("writev", lambda path: disk.append(path, b"y")),
    "append, sync": ("fdatasync", lambda path: disk.append(path, b"y")),
    "note": ("pwrite", lambda path: disk.note(path, b"y")),
    "read_note": ("pread", lambda path: disk.read_note(path, 1)),
    "sync_files": ("fdatasync", lambda path: disk.sync_files([path])),
    "sync_files, whole": ("fsync", lambda path: disk.sync_files([path])),
    "open_file": ("fstat", lambda path: disk.open_file(path)),
    "copy_part": ("fdatasync", lambda path: disk.copy_part(path, path.with_name("new"), 0, 4)),
}


@pytest.mark.parametrize(("call", "step"), STEPS.values(), ids=STEPS.keys())
def test_no_descriptor_is_left_open(tmp_path: Path, call: str, step: Callable[[Path], object]) -> None:
    """Where a call of the kernel fails in the middle of a step, the step closes what it has opened."""
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, _failing)
        with contextlib.suppress(OSError):
            step(path)
    assert len(os.listdir("/proc/self/fd")) == before
