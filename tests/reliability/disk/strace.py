"""Watches the calls with which a running gateway changes its disk, makes some of them fail, and reads what came of it.

strace counts the calls of each thread by itself: the third call fails in every thread that makes three.
It is attached to a gateway that serves, and detached to mend the disk; its log says which calls have failed by its doing.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from reliability.calls import Call, Namer, Step
from reliability.row import CannotRun
from testkit.deadlines import TIMEOUT_FACTOR

# Each kind of call by the one name that the gateway's code would use, with the names that other machines have for it.
SPELLINGS = {
    "rename": ("rename", "renameat", "renameat2"),
    "unlink": ("unlink", "unlinkat"),
    "mkdir": ("mkdir", "mkdirat"),
    "link": ("link", "linkat"),
    "openat": ("open", "openat"),
    **{name: (name,) for name in ("rmdir", "write", "writev", "pwrite64", "fdatasync", "fsync", "ftruncate", "close")},
    **{name: (name,) for name in ("copy_file_range", "sendfile")},
}
_CALL = re.compile(r"(?P<thread>\d+) +(?P<name>\w+)\((?P<rest>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)")
_RESULT = re.compile(r"(?P<arguments>.*)\) += (?P<returned>-?\d+)(?P<file><.*?>(?:\(deleted\))?)?(?: (?P<error>E\w+)\b.*)?.*")
_UNFINISHED = " <unfinished ...>"
_DESCRIPTOR = re.compile(r"(\d+)<([^>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_PATHS = ("rename", "unlink", "mkdir", "link", "openat", "rmdir")


@dataclass(frozen=True)
class Traced:
    """One call that has come back.

    Attributes:
        name: one of `SPELLINGS`.
        paths: of the files it is about.
        descriptor: the one it was given or, of an open, has given; -1 for none.
        flags: of an open, as strace writes them.
        error: `EIO`; empty if it succeeded.
        injected: whether it was strace that had it fail.
    """

    thread: int
    name: str
    paths: tuple[str, ...]
    descriptor: int = -1
    flags: str = ""
    error: str = ""
    injected: bool = False


def parse(lines: Iterable[str]) -> Iterator[Traced]:
    """Read a log of strace; calls stand where they came back, but for those that close a file."""
    begun: dict[str, str] = {}
    for line in lines:
        resumed = _RESUMED.match(line)
        if resumed is not None:
            called, text = begun.pop(resumed["thread"], ""), resumed["rest"]
            name, _, before = called.partition("(")
            thread, rest = resumed["thread"], before + text
        elif (call := _CALL.match(line)) is not None:
            thread, name, rest = call["thread"], call["name"], call["rest"].rstrip("\n")
            if rest.endswith(_UNFINISHED) and name == "close":
                # Another thread may be given the number before this one has come back.
                rest = rest.removesuffix(_UNFINISHED) + ") = 0"
            elif rest.endswith(_UNFINISHED):
                begun[thread] = f"{name}({rest.removesuffix(_UNFINISHED)}"
                continue
        else:
            continue
        if name and (result := _RESULT.match(rest)) is not None:
            yield _traced(int(thread), name, result, injected="(INJECTED)" in rest)


def _traced(thread: int, spelling: str, result: re.Match[str], *, injected: bool) -> Traced:
    name = next((name for name, spellings in SPELLINGS.items() if spelling in spellings), spelling)
    arguments = result["arguments"]
    if name in _PATHS:
        paths = tuple(_QUOTED.findall(arguments))
        descriptor = int(result["returned"]) if name == "openat" else -1
        return Traced(thread, name, paths, descriptor, _flags(arguments), result["error"] or "", injected)
    found = _DESCRIPTOR.match(arguments)
    descriptor, path = (int(found[1]), found[2]) if found else (-1, "")
    return Traced(thread, name, (path,) if path.startswith("/") else (), descriptor, "", result["error"] or "", injected)


def _flags(arguments: str) -> str:
    found = re.search(r"\bO_[A-Z_|]+", arguments)
    return found[0] if found else ""


def steps(calls: Iterable[Traced], spool: str) -> Iterator[tuple[Traced, Step]]:
    """The calls on the spool with the names of the steps that they are."""
    namer = Namer()
    namer.step(Call(0, "listen"))
    for call in calls:
        paths = tuple(path.removeprefix(f"{spool}/") for path in call.paths if path.startswith(f"{spool}/"))
        if paths and call.name != "close":
            step = namer.step(Call(call.thread, call.name, paths, makes="O_CREAT" in call.flags))
            if step is not None:
                yield call, step


@dataclass(frozen=True)
class Fault:
    """Calls that fail.

    Attributes:
        calls: of `SPELLINGS`.
        error: `EIO`.
        when: which one of each thread: `3`, or `3+` for that and all later ones.
    """

    calls: tuple[str, ...]
    error: str
    when: str

    def expression(self) -> str:
        """As strace takes it."""
        return f"inject={_names(self.calls)}:error={self.error}:when={self.when}"

    def __str__(self) -> str:
        return f"{self.error} of {' and '.join(self.calls)} {self.when}"


def _names(calls: Iterable[str]) -> str:
    # Those that this machine does not have are passed over.
    return ",".join(f"?{spelling}" for call in calls for spelling in SPELLINGS[call])


def command(log: Path, faults: Sequence[Fault], calls: Iterable[str] = SPELLINGS) -> list[str]:
    """The strace that watches these calls, writes the log and makes the faults; to be completed by what it is to watch."""
    found = shutil.which("strace")
    if found is None:
        raise CannotRun("there is no strace (Debian: strace)")
    injections = [argument for fault in faults for argument in ("-e", fault.expression())]
    return [found, "-f", "-y", "-s", "0", "-e", f"trace={_names(calls)}", *injections, "-o", str(log)]


class Strace:
    """A strace that is attached to a process between the first and the last line of a with-block."""

    def __init__(self, pid: int, log: Path, *faults: Fault) -> None:
        self._command = [*command(log, faults), "-p", str(pid)]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Strace:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self._process.stderr is not None
        said = self._process.stderr.readline().decode(errors="replace").strip()
        if "attached" not in said:
            self.mend()
            raise CannotRun(f"strace cannot watch the gateway: {said}")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.mend()

    def mend(self) -> None:
        """Let every call do what it should from now on."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20 * TIMEOUT_FACTOR)

    def calls(self) -> list[Traced]:
        """The calls so far."""
        with self._log.open(encoding="utf-8", errors="replace") as log:
            return list(parse(log))

    def failed(self) -> int:
        """How many calls have failed so far because they were made to."""
        return self._log.read_text("utf-8", "replace").count("(INJECTED)")
