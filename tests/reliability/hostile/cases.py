"""What hostile clients send, case by case, and how the answers to a case are judged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from reliability.hostile.clients import Heard
from testkit.ledger import Fate

HEALTH = b"GET /health HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class Sent:
    """One request, or what a client would have the gateway take for one.

    Attributes:
        data: the bytes.
        stream: where its contents would be found.
        contents: the lines, or the file, each unlike all others.
        may_be_taken: whether it is a whole request; of one that is none nothing may ever be there.
    """

    data: bytes
    stream: str = "usage"
    contents: tuple[bytes, ...] = ()
    may_be_taken: bool = True


@dataclass(frozen=True)
class Case:
    """What is sent on one connection.

    Attributes:
        name: says what is wrong with it.
        sent: one request after the other, without a pause.
        answers: the statuses that are right, in order; more than one row where it is chance how far the gateway had read.
        stays_open: whether the connection can be used after it, which is tried.
        half_closes: whether the client says after it that nothing more comes.
    """

    name: str
    sent: tuple[Sent, ...]
    answers: tuple[tuple[int, ...], ...]
    stays_open: bool = False
    half_closes: bool = False

    @property
    def data(self) -> bytes:
        """Everything that is sent."""
        return b"".join(one.data for one in self.sent) + (HEALTH if self.stays_open else b"")


def fates(case: Case, statuses: Sequence[int]) -> list[tuple[Sent, Fate]]:
    """What the client was told of each request: answers come in the order of requests."""
    told: list[tuple[Sent, Fate]] = []
    for number, one in enumerate(case.sent):
        if not one.may_be_taken:
            told.append((one, Fate.REFUSED))
        elif number >= len(statuses):
            told.append((one, Fate.UNANSWERED))
        else:
            told.append((one, Fate.ACKNOWLEDGED if statuses[number] == 204 else Fate.REFUSED))
    return told


def faults(case: Case, heard: Sequence[Heard], rest: bytes) -> list[str]:
    """What is wrong with the answers to a case."""
    statuses = tuple(one.status for one in heard)
    right = [(*row, 200) if case.stays_open else row for row in case.answers]
    found = []
    if statuses not in right:
        found.append(f"answered {statuses}, not {' or '.join(map(str, right))}")
    if rest:
        found.append(f"after its answers came {rest[:60]!r}")
    found += [f"the answer {one.status} is not as described: {one.body[:60]!r}" for one in heard if not is_described(one)]
    return found


def is_described(one: Heard) -> bool:
    """Whether an answer has the form that docs/openapi.yml describes."""
    if "x-request-id" not in one.headers:
        return False
    if one.status < 400:
        return True
    try:
        error = json.loads(one.body)["error"]
        return set(error) == {"code", "message"} and bool(error["message"])
    except (ValueError, KeyError, TypeError):
        return False


# --- requests ------------------------------------------------------------------------------------------------------


def report(name: str) -> bytes:
    """A report unlike all others."""
    return b'{"id":"%s"}' % name.encode()


def lines(name: str, count: int = 3, size: int = 0) -> tuple[bytes, ...]:
    """Some reports, each longer by so many blanks."""
    return tuple(report(f"{name}-{number}") + b" " * size for number in range(count))


def head(path: str, *fields: str, method: str = "PUT", version: str = "HTTP/1.1") -> bytes:
    """The head of a request by a user."""
    return "\r\n".join([f"{method} {path} {version}", "Host: gateway", "USER_TOKEN: mallory", *fields, "", ""]).encode("latin-1")


def put(path: str, body: bytes, *fields: str) -> bytes:
    """A whole request that says how long it is."""
    return head(path, f"Content-Length: {len(body)}", *fields) + body


def in_chunks(body: bytes, size: int = 7) -> bytes:
    """A body in chunks, as it should be."""
    cut = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut) + b"0\r\n\r\n"


def good(name: str) -> Sent:
    """An ordinary report."""
    body = report(name)
    return Sent(put("/usage", body), contents=(body,))


def good_lines(name: str, count: int = 3) -> Sent:
    """Ordinary reports in one body."""
    contents = lines(name, count)
    return Sent(put("/usage", b"\n".join(contents), f"Content-Type: {NDJSON}"), contents=contents)


def good_file(name: str, size: int = 300) -> Sent:
    """An ordinary file."""
    body = (f"{name} ".encode() * size)[:size]
    return Sent(put(f"/specimen?uri=file:///{name}", body), "specimen", (body,))


def bad_json(name: str) -> Sent:
    """A request that is well-formed and holds a report that is not."""
    return Sent(put("/usage", report(name)[:-1]), contents=(report(name)[:-1],))
