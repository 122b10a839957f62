"""Names the calls of a running gateway: which transition of the spool each belongs to, and the how manieth of its kind it is.

A call is named by what it does to which kind of file, without the instants and numbers in the names, so that the same call
has the same name in every run of one scenario: `rename usage/….jsonl.open -> usage/….jsonl`, the second.
What a call on `tmp/` or the sync of a directory is for is told by what the same thread has done just before.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

START = "start"
TRANSITIONS = (
    START,
    "receive",
    "commit",
    "cut",
    "claim",
    "aggregate",
    "seal",
    "seal unpacked",
    "remove sources",
    "deliver",
    "retire",
)

_KINDS = r"\.jsonl\.open|\.jsonl\.gz|\.jsonl|\.json|\.meta|\.body"
_GIVEN_NAME = re.compile(rf"\d{{10,}}\..*?(?P<kind>{_KINDS}|)(?P<note>\.upload)?$")
_RECORD = ".owner"
_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) /(\S*) HTTP/1\.1\r\n")
_ANSWER = re.compile(rb"HTTP/1\.1 (\d+) ")

OPENS = frozenset({"open", "creat", "openat", "openat2"})
WRITES = frozenset({"write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "copy_file_range"})
SENDS = WRITES | {"sendto", "sendmsg", "sendmmsg"}
_WORDS = {
    **dict.fromkeys(OPENS, "create"),
    **dict.fromkeys(WRITES, "write"),
    **dict.fromkeys(("rename", "renameat", "renameat2"), "rename"),
    **dict.fromkeys(("link", "linkat"), "link"),
    **dict.fromkeys(("unlink", "unlinkat"), "remove"),
    **dict.fromkeys(("mkdir", "mkdirat"), "make"),
    "rmdir": "remove",
    "ftruncate": "truncate",
}


@dataclass(frozen=True)
class Call:
    """One call of the program, as it was seen.

    Attributes:
        thread: which has made it.
        name: as the kernel's manual has it.
        paths: of the files it is about, relative to the spool; none for a socket.
        makes: whether an open may make the file; it opens a directory otherwise.
        peer: `client` or `store` for a socket.
        connection: tells connections apart.
        data: the first bytes that are sent.
    """

    thread: int
    name: str
    paths: tuple[str, ...] = ()
    makes: bool = False
    peer: str = ""
    connection: str = ""
    data: bytes = b""


@dataclass(frozen=True, order=True)
class Step:
    """A call that changes the disk or tells somebody something, told apart from all others of one run.

    Attributes:
        transition: one of `TRANSITIONS`.
        text: what it does.
        occurrence: counted from 1 over the whole run.
    """

    transition: str
    text: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.text}, {ordinal(self.occurrence)}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def shown(path: str) -> str:
    """A path in the spool without what differs between runs: `usage/….jsonl.open`."""
    return str(PurePosixPath(*(_shown_name(part) for part in PurePosixPath(path).parts)))


def _shown_name(name: str) -> str:
    found = _GIVEN_NAME.match(name)
    return f"…{found['kind']}{found['note'] or ''}" if found else name


class Namer:
    """Names the calls of one run, in the order in which they are made."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        # What the files in `tmp/` are, what each thread did or looked at last, what its last change belonged to, and what each
        # connection carries.
        self._drafts: dict[str, str] = {}
        self._last: dict[int, str] = {}
        self._transitions: dict[int, str] = {}
        self._carried: dict[str, str] = {}
        self._serves = False

    def step(self, call: Call) -> Step | None:
        """The name of a call; None if it changes nothing that matters."""
        if call.name == "listen":
            self._serves = True
            return None
        if call.peer:
            return self._counted(self._sent(call))
        if not call.paths or (self._serves and call.paths == (_RECORD,)):
            # The record of the owner is written each second, whatever else is done.
            return None
        if call.name in OPENS and not call.makes:
            self._last[call.thread] = f"look at {shown(call.paths[0])}"
            return None
        return self._counted(self._changed(call))

    def _counted(self, named: tuple[str, str] | None) -> Step | None:
        if named is None:
            return None
        self._counts[named] += 1
        return Step(*named, self._counts[named])

    # --- the disk -------------------------------------------------------------------------------------------------

    def _changed(self, call: Call) -> tuple[str, str]:
        if not self._serves:
            return START, self._text(call, tuple(shown(path) for path in call.paths))
        for path in call.paths:
            if path.startswith("tmp/") and path not in self._drafts:
                self._drafts[path] = _draft(self._last.get(call.thread, ""))
        what = tuple(self._shown_draft(path) for path in call.paths)
        text = self._text(call, what)
        if call.name == "fsync" and _is_directory(what[0]):
            possible = _SYNCED[_kind_of(what[0])]
            before = self._transitions.get(call.thread, "")
            transition = before if before in possible else possible[0]
            text += f" ({transition})"
        else:
            transition = _transition(text, what)
        self._last[call.thread], self._transitions[call.thread] = text, transition
        return transition, text

    def _shown_draft(self, path: str) -> str:
        return f"tmp/{self._drafts[path]}" if path in self._drafts else shown(path)

    @staticmethod
    def _text(call: Call, what: tuple[str, ...]) -> str:
        return f"{_WORDS.get(call.name, call.name)} {' -> '.join(what)}"

    # --- the network ----------------------------------------------------------------------------------------------

    def _sent(self, call: Call) -> tuple[str, str] | None:
        if call.peer == "client":
            answer = _ANSWER.match(call.data)
            return ("commit", f"answer {answer[1].decode()}") if answer else ("commit", "go on answering")
        request = _REQUEST.match(call.data)
        if request:
            self._carried[call.connection] = text = _request(request[1].decode(), request[2].decode())
            return "deliver", text
        return "deliver", f"body of {self._carried.get(call.connection, 'what was sent before')}"


# To which transitions the sync of a directory may belong: to the one to which the thread's last change belonged, else to the
# first.
_SYNCED = {
    "stream": ("claim", "receive", "commit", "cut", "seal unpacked", "deliver", "retire"),
    "aggregation": ("remove sources", "claim"),
    "batch": ("claim", "seal unpacked", "remove sources"),
    "uploading": ("remove sources", "seal", "seal unpacked", "deliver", "retire"),
    "other": (START,),
}


def _is_directory(path: str) -> bool:
    return "." not in PurePosixPath(path).name


def _kind_of(directory: str) -> str:
    parts = PurePosixPath(directory).parts
    if len(parts) == 1 and parts[0] not in ("tmp", "quarantine"):
        return "stream"
    if len(parts) == 3 and parts[1] == "aggregation":
        return "batch"
    return parts[1] if len(parts) == 2 and parts[1] in _SYNCED else "other"


def _draft(before: str) -> str:
    """What a new file in `tmp/` is for: a sidecar follows the sync of its body, an archive the look at its sources."""
    if before == "fdatasync tmp/draft":
        return "sidecar"
    return "archive" if before.startswith("look at ") and "/aggregation/" in before else "draft"


def _transition(text: str, what: tuple[str, ...]) -> str:
    """Which transition a change belongs to, that is no sync of a directory."""
    first, last = what[0], what[-1]
    if last.endswith(".upload"):
        return "deliver"
    if "/uploading/" in last:
        if text.startswith("rename ") and "/uploading/" not in first:
            return "seal" if first == "tmp/archive" else "seal unpacked"
        return "retire" if text.startswith("remove ") else "deliver"
    if "/aggregation/" in last:
        return "remove sources" if text.startswith("remove ") else "claim"
    if first == "tmp/archive":
        # Its removal has nothing left to remove, once it is in place.
        return "seal" if text.startswith("remove ") else "aggregate"
    if text.startswith(("rename tmp/", "remove tmp/", "fdatasync usage/", "fdatasync error/")):
        return "commit"
    if text.startswith("rename ") and first.endswith(".jsonl.open"):
        return "cut"
    if text.startswith("remove ") and first.endswith((".body", ".meta")):
        return "retire"
    return "receive"


def _request(method: str, target: str) -> str:
    """A request to the store without what differs between runs: `PUT specimen part 2`."""
    path, _, query = target.partition("?")
    bucket, _, key = path.partition("/")
    stream = bucket.partition("-")[0]
    of_proof = " of proof" if key.endswith("-proof") else ""
    if part := re.search(r"partNumber=(\d+)", query):
        return f"{method} {stream} part {part[1]}{of_proof}"
    if "uploads" in query:
        return f"{method} {stream} begin of upload{of_proof}"
    if "uploadId=" in query:
        return f"{method} {stream} upload{of_proof}"
    return f"{method} {stream} {'proof' if of_proof else 'object'}"
