"""Records what a running gateway did to its disk, whom it told, and what the store held meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from reliability.power.disk_states import ROOT, Do, Step
from reliability.row import CannotRun
from testkit.gateway_process import Gateway

_NAMES = "mkdir,mkdirat,rmdir,rename,renameat,renameat2,link,linkat,unlink,unlinkat,symlink,symlinkat"
_DATA = "write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,fallocate,copy_file_range,sendfile"
_CALLS = f"{_NAMES},{_DATA},open,openat,openat2,creat,fsync,fdatasync,sync,syncfs,sync_file_range,msync,sendto,sendmsg,listen"
_OPTIONS = ("-f", "-y", "-xx", "-s", "20000000", "--seccomp-bpf", "-e", "signal=none", "-e", f"trace={_CALLS}")
_CLOCK = ("--absolute-timestamps=format:unix,precision:ns", "--syscall-times=ns")
# Neither is promised to anybody: what a power cut leaves of them says nothing of received data.
_UNPROMISED = (".lock", ".owner")


class Unknown(Exception):
    """The gateway did something to its disk that this recorder cannot tell; the text says what."""


class RecordedGateway(Gateway):
    """A gateway under strace, which writes down each call with all its data."""

    def _command(self, port: int) -> list[str]:
        strace = shutil.which("strace")
        if strace is None:
            raise CannotRun("strace is not installed")
        return [strace, *_OPTIONS, *_CLOCK, "-o", str(self._trace), *super()._command(port)]

    @property
    def _trace(self) -> Path:
        return self.folder / "trace"

    def start(self) -> None:
        """See `Gateway.start`; CannotRun where nothing may be traced."""
        try:
            super().start()
        except AssertionError:
            if "ptrace" in self.said() or "PTRACE" in self.said():
                raise CannotRun(f"strace cannot trace here: {self.said().strip()[:200]}") from None
            raise

    def signal(self, number: signal.Signals) -> None:
        """To the gateway: strace would not pass it on."""
        os.kill(self.events("gateway starting")[0]["pid"], number)

    def steps(self) -> list[Step]:
        """What it did, once it has ended."""
        with self._trace.open(errors="surrogateescape") as lines:
            return list(steps(lines, str(self.cache)))


# --- what strace wrote -------------------------------------------------------------------------------------------

_LINE = re.compile(r"(?P<thread>\d+) +(?P<at>\d+\.\d+) (?P<rest>.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_ENDED = re.compile(
    r"(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)(?:<(?P<path>[^>]*)>)?.* <(?P<took>[\d.]+)>", re.DOTALL
)
_BEGUN = re.compile(r"(?P<call>\w+)\((?P<arguments>.*)", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"\d+<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?")
_ANSWER = re.compile(rb"HTTP/1\.1 204 .*?\r\nX-Request-ID: ([^\r]+)\r\n", re.DOTALL | re.IGNORECASE)


def steps(lines: Iterator[str] | Sequence[str], root: str) -> Iterator[Step]:
    """Read what strace wrote.

    A change counts from when its call has returned, a sync covers what had returned before it was called, and a request
    is answered as soon as the call is made that sends the answer: whatever may be so at a moment is then among its states.

    Raises:
        Unknown: something was done within the root that is none of the steps.
    """
    reader = _Reader(root)
    halves: dict[str, str] = {}
    for line in lines:
        found = _LINE.match(line.rstrip("\n"))
        if found is None or found["rest"].startswith(("+++", "---")):
            continue
        thread, rest, at_ns = found["thread"], found["rest"], _nanoseconds(found["at"])
        if rest.endswith(" <unfinished ...>"):
            halves[thread] = rest.removesuffix(" <unfinished ...>")
            yield from reader.begun(thread, halves[thread], at_ns)
        elif resumed := _RESUMED.match(rest):
            yield from reader.ended(thread, halves.pop(thread) + resumed[1], at_ns)
        else:
            yield from reader.begun(thread, rest, at_ns)
            yield from reader.ended(thread, rest, at_ns, is_whole=True)


def _nanoseconds(text: str) -> int:
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))


class _Reader:
    """Makes steps of calls."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._syncs = 0
        self._syncing: dict[str, int] = {}

    def begun(self, thread: str, text: str, at_ns: int) -> Iterator[Step]:
        """A call is made."""
        found = _BEGUN.match(text)
        if found is None:
            return
        call, arguments = found["call"], found["arguments"]
        if call == "listen":
            yield Step(Do.LISTEN, at_ns=at_ns)
        elif call in ("write", "writev", "sendto", "sendmsg") and (descriptor := _DESCRIPTOR.match(arguments)):
            if _decoded(descriptor[1]).startswith(b"socket:"):
                for name in _ANSWER.findall(_data(arguments)):
                    yield Step(Do.ANSWER, name.decode(), at_ns=at_ns)
        elif call in ("fsync", "fdatasync") and (path := self._of_descriptor(arguments)):
            self._syncs += 1
            self._syncing[thread] = self._syncs
            yield Step(Do.BEGIN_SYNC, path, number=self._syncs, at_ns=at_ns)

    def ended(self, thread: str, text: str, at_ns: int, *, is_whole: bool = False) -> Iterator[Step]:
        """A call has returned; `at_ns` is when it was made if all of it stands in one line."""
        found = _ENDED.fullmatch(text)
        number = self._syncing.pop(thread, 0)
        if found is None or int(found["result"]) < 0:
            return
        call, arguments, result = found["call"], found["arguments"], int(found["result"])
        if is_whole:
            at_ns += _nanoseconds(found["took"])
        if call in ("fsync", "fdatasync"):
            if path := self._of_descriptor(arguments):
                yield Step(Do.END_SYNC, path, number=number, at_ns=at_ns)
        elif call in _NAME_STEPS:
            yield from self._named(_NAME_STEPS[call], arguments, at_ns)
        elif call in ("open", "openat", "openat2", "creat"):
            yield from self._opened(arguments, found["path"] or "", at_ns)
        elif path := self._of_descriptor(arguments):
            yield self._written(call, path, arguments, result, at_ns)

    def _named(self, do: Do, arguments: str, at_ns: int) -> Iterator[Step]:
        paths = [self._within(_text(path)) for path in _TEXT.findall(arguments)]
        if do is Do.REMOVE and "AT_REMOVEDIR" in arguments:
            do = Do.REMOVE_DIRECTORY
        if all(path in ("", ROOT, *_UNPROMISED) for path in paths):
            return
        if "" in paths:
            raise Unknown(f"{do.value} across the edge of the spool: {paths}")
        if do is Do.RENAME and "RENAME_" in arguments:
            raise Unknown(f"a rename with flags: {paths}")
        yield Step(do, paths[0], paths[1] if len(paths) > 1 else "", at_ns=at_ns)

    def _opened(self, arguments: str, opened: str, at_ns: int) -> Iterator[Step]:
        path = self._within(_text(opened))
        if path in ("", ROOT, *_UNPROMISED) or not ("O_WRONLY" in arguments or "O_RDWR" in arguments):
            return
        if "O_APPEND" not in arguments or "O_TRUNC" in arguments:
            raise Unknown(f"{path} was not opened for writing at its end")
        if "O_CREAT" in arguments:
            if "O_EXCL" not in arguments:
                raise Unknown(f"{path} may have been there before")
            yield Step(Do.MAKE_FILE, path, at_ns=at_ns)

    def _written(self, call: str, path: str, arguments: str, result: int, at_ns: int) -> Step:
        match call:
            case "write" | "writev":
                return Step(Do.WRITE, path, data=_data(arguments)[:result], at_ns=at_ns)
            case "ftruncate":
                return Step(Do.TRUNCATE, path, offset=int(arguments.rpartition(", ")[2]), at_ns=at_ns)
        raise Unknown(f"{call} of {path}")

    def _of_descriptor(self, arguments: str) -> str:
        """The path that the first argument leads to, empty if it is none of the spool's, or one that is gone."""
        found = _DESCRIPTOR.match(arguments)
        path = self._within(_text(found[1])) if found and not found[2] else ""
        return "" if path in _UNPROMISED else path

    def _within(self, path: str) -> str:
        if path == self._root:
            return ROOT
        if path and not path.startswith("/"):
            # The gateway is given an absolute cache_dir; anything else would have to be told from its directory.
            return ""
        return str(PurePosixPath(path).relative_to(self._root)) if path.startswith(f"{self._root}/") else ""


_NAME_STEPS = {
    **dict.fromkeys(("mkdir", "mkdirat"), Do.MAKE_DIRECTORY),
    "rmdir": Do.REMOVE_DIRECTORY,
    **dict.fromkeys(("rename", "renameat", "renameat2"), Do.RENAME),
    **dict.fromkeys(("link", "linkat"), Do.LINK),
    **dict.fromkeys(("unlink", "unlinkat"), Do.REMOVE),
}


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _text(text: str) -> str:
    return os.fsdecode(_decoded(text))


def _data(arguments: str) -> bytes:
    """All that is in quotes, one after the other: the buffer, or every part of a vector."""
    # The name of the file that a descriptor leads to stands in angles.
    return b"".join(_decoded(text) for text in _TEXT.findall(arguments))


# --- which transition a step belongs to --------------------------------------------------------------------------


def transitions(steps: Sequence[Step]) -> list[str]:
    """For each step the transition of the spool that it belongs to, by the names of `gateway/spool/spool.py`.

    Everything before the first request can come is `start`; the removal of sources belongs to `seal`.
    """
    drafts = {step.path: step.target for step in steps if step.do is Do.RENAME and step.path.startswith("tmp/")}
    last: dict[str, str] = {}
    serves = False
    found = []
    for step in steps:
        serves = serves or step.do is Do.LISTEN
        if step.do is Do.ANSWER:
            transition = "commit"
        elif step.do in (Do.BEGIN_SYNC, Do.END_SYNC) and step.path in last:
            # The sync of a directory is the end of what was done in it.
            transition = last[step.path]
        else:
            transition = _transition(step, drafts)
        for path in (step.path, step.target):
            last[str(PurePosixPath(path).parent)] = transition
        found.append(transition if serves else "start")
    return found


def _transition(step: Step, drafts: dict[str, str]) -> str:
    last = step.target or step.path
    parts = PurePosixPath(last).parts
    if parts[:1] == ("tmp",):
        return "aggregate" if "/uploading/" in drafts.get(step.path, "") else "receive"
    if "aggregation" in parts:
        return "seal" if step.do in (Do.REMOVE, Do.REMOVE_DIRECTORY) else "claim"
    if last.endswith(".upload") or ("uploading" in parts and step.path.startswith(parts[0]) and step.do is Do.RENAME):
        return "deliver"
    if step.do is Do.REMOVE:
        return "retire"
    if "uploading" in parts:
        return "seal"
    if step.path.endswith(".jsonl.open"):
        return "cut" if step.do is Do.RENAME else "receive"
    return "commit" if step.do is Do.RENAME else "start"
