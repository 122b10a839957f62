"""Runs a program and stops it at each of its calls that change something, with the kernel's own means for debuggers.

strace counts the calls of each thread by itself, and the gateway's threads take turns; here the calls are counted over the
whole program. A filter in the kernel picks the calls, so that all others cost nothing.

A thread that is stopped at the entry of a call has not made it, and SIGKILL then has it skipped; at the exit the call is done
and the program has not seen it. Before the kill the thread is held there for a moment in which the others go on, so that who
should have waited for the call and did not is found out. Knows x86-64 alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

# Which numbers the kernel of x86-64 gives the calls that change a disk or tell somebody something.
NUMBERS: Mapping[int, str] = {
    1: "write", 18: "pwrite64", 20: "writev", 296: "pwritev", 328: "pwritev2", 40: "sendfile", 326: "copy_file_range",
    44: "sendto", 46: "sendmsg", 307: "sendmmsg", 50: "listen",
    2: "open", 85: "creat", 257: "openat", 437: "openat2",
    74: "fsync", 75: "fdatasync", 277: "sync_file_range", 77: "ftruncate", 76: "truncate", 285: "fallocate",
    82: "rename", 264: "renameat", 316: "renameat2", 86: "link", 265: "linkat", 88: "symlink", 266: "symlinkat",
    87: "unlink", 263: "unlinkat", 83: "mkdir", 258: "mkdirat", 84: "rmdir",
    # Would let the program write unseen.
    425: "io_uring_setup",
}  # fmt: skip
_OPENAT = 257
# Of the opens, those that make a file, and those of a directory, which tell what a thread is about.
_O_INTERESTING = os.O_CREAT | os.O_DIRECTORY

_SEIZE, _CONT, _SYSCALL, _LISTEN, _GETEVENTMSG, _GET_SYSCALL_INFO = 0x4206, 7, 24, 0x4208, 0x4201, 0x420E
# Follow every thread and child, stop at the filter's calls, and take all of them along if the tracer dies.
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_WALL = 0x40000000
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_ARCH_X86_64 = 0xC000003E
_RET_TRACE, _RET_ALLOW = 0x7FF00000, 0x7FFF0000
_INFO_BYTES = 88
_HOLD_S = 0.1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class Untraceable(Exception):
    """No program can be stopped at its calls here; the text says why."""


@dataclass(frozen=True)
class Stop:
    """A thread at the entry of a call, or at its exit.

    Attributes:
        process, thread: their ids.
        call: its name.
        arguments: the six of them.
        returned: what it gave back; None at the entry.
    """

    process: int
    thread: int
    call: str
    arguments: tuple[int, ...]
    returned: int | None = None

    def text(self, address: int) -> str:
        """The zero-ended string at an address, such as a path."""
        data = self.memory(address, 4096)
        return os.fsdecode(data.partition(b"\0")[0])

    def memory(self, address: int, size: int) -> bytes:
        """So many bytes of the program's memory, or fewer where it ends; `ProcessLookupError` where the program has ended."""
        try:
            with open(f"/proc/{self.thread}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                data = memory.read(size)
        except OSError as error:
            raise ProcessLookupError(str(error)) from error
        if not data:
            raise ProcessLookupError("no memory is left")
        return data

    def file(self, descriptor: int) -> str:
        """What a descriptor stands for: a path, or `socket:[number]`; empty if nothing."""
        try:
            return os.readlink(f"/proc/{self.thread}/fd/{descriptor}")
        except OSError:
            return ""


# What is to be done at a stop: True holds the thread there, and kills the program a moment later.
Decide = Callable[[Stop], bool]


def run(command: Sequence[str], environment: Mapping[str, str], decide: Decide) -> int:
    """Run a program to its end, asking at the entry and at the exit of each call; return its exit code, or minus its signal.

    The process has to be one of its own: every child of it is waited for, and SIGTERM and SIGINT go to the program.

    Raises:
        Untraceable: the machine is none that this file knows, or does not let a program be traced.
    """
    if platform.machine() != "x86_64":
        raise Untraceable(f"stopping a program at its calls is written for x86-64, and this is {platform.machine()}")
    ready, go = os.pipe()
    program = os.fork()
    if program == 0:
        _become(command, environment, ready)
    try:
        _ptrace(_SEIZE, program, 0, _OPTIONS)
    except OSError as error:
        os.kill(program, signal.SIGKILL)
        raise Untraceable(f"programs may not be traced here: {error}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(program, number))
    signal.signal(signal.SIGALRM, lambda *_: os.kill(program, signal.SIGKILL))
    os.write(go, b"!")
    return _follow(program, decide)


def _become(command: Sequence[str], environment: Mapping[str, str], ready: int) -> NoReturn:
    """In the child: have the filter installed, then be the program."""
    try:
        os.read(ready, 1)
        code = _filter()
        buffer = ctypes.create_string_buffer(code, len(code))
        program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
        if _libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0):
            os.write(2, b"no filter can be installed\n")
            os._exit(127)
        os.execvpe(command[0], list(command), dict(environment))
    finally:
        os._exit(127)


def _filter() -> bytes:
    """The picking as a program for the kernel: stop at these numbers, at openat only if it makes a file or opens a directory."""
    load, equal, is_set, answer = 0x20, 0x15, 0x45, 0x06
    numbers = sorted(set(NUMBERS) - {_OPENAT})
    steps = [
        (load, 0, 0, 4),  # the architecture
        (equal, 1, 0, _ARCH_X86_64),
        (answer, 0, 0, _RET_ALLOW),
        (load, 0, 0, 0),  # the number
        (equal, 0, 3, _OPENAT),
        (load, 0, 0, 16 + 2 * 8),  # the flags of an openat
        (is_set, 0, len(numbers) + 1, _O_INTERESTING),
        (answer, 0, 0, _RET_TRACE),
        *((equal, len(numbers) - index, 0, number) for index, number in enumerate(numbers)),
        (answer, 0, 0, _RET_ALLOW),
        (answer, 0, 0, _RET_TRACE),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _follow(program: int, decide: Decide) -> int:
    inside: dict[int, Stop] = {}
    while True:
        thread, status = os.waitpid(-1, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            inside.pop(thread, None)
            if thread == program:
                return os.waitstatus_to_exitcode(status)
            continue
        # Killed meanwhile where it says that there is none; the end of the thread is reported next.
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            _go_on(program, thread, status, inside, decide)


def _go_on(program: int, thread: int, status: int, inside: dict[int, Stop], decide: Decide) -> None:
    """Ask at a stop, and have the thread go on if it is not held there."""
    event, number = status >> 16, os.WSTOPSIG(status)
    request, passed_on, is_held = _CONT, 0, False
    if event == _EVENT_SECCOMP:
        inside[thread] = stop = _entry(program, thread)
        request, is_held = _SYSCALL, decide(stop)
    elif number == signal.SIGTRAP | 0x80:
        entry = inside.pop(thread, None)
        is_held = entry is not None and decide(_exit(entry))
    elif event == _EVENT_STOP and number in (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        request = _LISTEN
    elif event == 0:
        passed_on = number
    if is_held:
        signal.setitimer(signal.ITIMER_REAL, _HOLD_S)
    else:
        _ptrace(request, thread, 0, passed_on)


def _entry(program: int, thread: int) -> Stop:
    info = _info(thread)
    # op, three bytes of nothing, arch, two pointers; then the number and the arguments.
    number, *arguments = struct.unpack_from("7Q", info, 24)
    return Stop(program, thread, NUMBERS[number], tuple(arguments))


def _exit(entry: Stop) -> Stop:
    (returned,) = struct.unpack_from("q", _info(entry.thread), 24)
    return Stop(entry.process, entry.thread, entry.call, entry.arguments, returned)


def _info(thread: int) -> bytes:
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    _ptrace(_GET_SYSCALL_INFO, thread, _INFO_BYTES, ctypes.addressof(buffer))
    return buffer.raw


def _ptrace(request: int, thread: int, address: int, data: int) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
