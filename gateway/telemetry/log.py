"""The log: one line an event on STDERR, as text for people or as JSON for machines."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

from gateway.core.bounded import Bounded
from gateway.telemetry.log_values import MAX_TEXT_CHARACTERS, json_value, shortened, text_value

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS: Final = ("text", "json")

_ACCESS_DELAY_S = 0.1
_BATCH_LINES = 4096
# Of those a part of their lines is ready.
KEPT_SENDERS = 4096
_SOON, _NOW = 1, 2
_OUTCOMES = (("info", "request done"), ("info", "request failed"), ("warning", "request failed"), ("debug", "request done"))
_DONE, _PROBED = 0, 3
# A method or a version that nobody promised: nothing that an operator has to look at, though it begins with a 5.
_ASKED_FOR = frozenset({501, 505})
_ACCESS_LEVELS = tuple(LEVELS[level] for level, _ in _OUTCOMES)
_TENTHS = tuple(f"{n // 10}.{n % 10}" for n in range(1000))
_MILLISECONDS = tuple(f".{n:03d}Z" for n in range(1000))


# A request's method, path, user and address, then the seconds to its answer, the bytes of its body, and its id.
Sender = tuple[str, str, str | None, str | None]
Request = tuple[Sender, float, int, str]


class Log:
    """Takes events from any thread without blocking it; a thread of its own writes them in batches.

    Start it early, once in a process and after any fork: the thread does not follow one.

    Args:
        level: the least level written, a key of LEVELS.
        format: one of FORMATS.
        fd: the file descriptor written to; a closed one is replaced by /dev/null.
        max_buffered_bytes: what may wait for a blocked descriptor; access lines leave an eighth of it to other events.
        is_shared: whether other processes write to the descriptor too; then each write is one that a pipe does not tear.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        level: str = "info",
        format: str = "text",  # noqa: A002 (the name of the setting)
        fd: int = 2,
        *,
        max_buffered_bytes: int = 8 << 20,
        is_shared: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if format not in FORMATS:
            raise ValueError(f"no such log format: {format!r}")
        self._threshold = LEVELS[level]
        self._json = format == "json"
        self._heads = [self._head(*outcome) for outcome in _OUTCOMES]
        self._known: Bounded[Sender, str] = Bounded(KEPT_SENDERS)
        # Of answers that say nothing but their status.
        self._answers: dict[int, str] = {}
        self._fd = _open_or_null(fd)
        self._limit_bytes = max_buffered_bytes
        self._is_shared = is_shared
        self._access_limit_bytes = max_buffered_bytes - max_buffered_bytes // 8
        self._clock = clock
        self._second = (-1, "")
        self._lines: collections.deque[bytes] = collections.deque()
        self._pending_bytes = 0
        self._dropped = 0
        self._wanted = 0
        self._broken = self._torn = self._closing = False
        # A finalizer may log in the middle of any statement, these too, so the lock and the queue are reentrant ones.
        self._lock = threading.RLock()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)

    def start(self) -> Self:
        """Begin to write; what was logged before is written first."""
        self._thread.start()
        return self

    def info(self, event: str, /, **fields: object) -> None:
        """Tell what went as it should."""
        self.event("info", event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Tell what the gateway will mend by itself."""
        self.event("warning", event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Tell what needs a person."""
        self.event("error", event, fields)

    def event(self, level: str, event: str, fields: dict[str, object]) -> None:
        """Tell an event whose level is known only at run time."""
        if LEVELS[level] >= self._threshold:
            self._put(self._line(level, event, fields), self._limit_bytes, _NOW)

    def access(self, path: str, status: int, requests: Sequence[Request], *, is_probe: bool = False, **fault: str) -> None:
        """Tell requests of one path that were answered together; made of ready parts because thousands come in a second.

        Args:
            path: without a query.
            status: of all the answers.
            requests: what differs.
            is_probe: whether it is asked every few seconds by a machine, so that only an error is news.
            fault: fields that say what was wrong with them.
        """
        outcome = (status >= 400) + (status >= 500 and status not in _ASKED_FOR)
        if outcome == _DONE and is_probe:
            outcome = _PROBED
        if self._threshold > _ACCESS_LEVELS[outcome]:
            return
        now, head = self._now(), self._heads[outcome]
        answer = self._pairs({"status": status, **fault}) if fault else self._answers.get(status) or self._answer(status)
        line_of = self._json_access if self._json else self._text_access
        lines = [
            line_of(now, head, self._known.get(sender) or self._know(sender), answer, _milliseconds(seconds), size, request_id)
            for sender, seconds, size, request_id in requests
        ]
        self._put("".join(lines).encode(), self._access_limit_bytes, _SOON)

    @staticmethod
    def _text_access(now: str, head: str, sender: str, answer: str, ms: str, size: int, request_id: str) -> str:
        shown = request_id if request_id.isalnum() else text_value(request_id)
        return f"{now} {head} {sender} {answer} duration_ms={ms} received_bytes={size} request_id={shown}\n"

    @staticmethod
    def _json_access(now: str, head: str, sender: str, answer: str, ms: str, size: int, request_id: str) -> str:
        shown = f'"{request_id}"' if request_id.isalnum() else json_value(request_id)
        return f'{{"time":"{now}",{head},{sender},{answer},"duration_ms":{ms},"received_bytes":{size},"request_id":{shown}}}\n'

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what is waiting, at most for so long; true when all of it is out. Later events are discarded."""
        with self._lock:
            self._closing = True
            self._wakes.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._dropped

    def _know(self, sender: Sender) -> str:
        """Render what comes again with every request of a client; bounded for the sake of clients that make it up."""
        method, path, user, ip = sender
        if len(path) + len(user or "") > MAX_TEXT_CHARACTERS:
            # Short in the line; not in the memory of what is known.
            return self._sender(method, shortened(path), shortened(user), ip)
        pairs = self._known[sender] = self._sender(*sender)
        return pairs

    def _sender(self, method: str | None, path: str | None, user: str | None, ip: str | None) -> str:
        return self._pairs({"method": method, "path": path, "user": user, "ip": ip})

    def _answer(self, status: int) -> str:
        answer = self._answers[status] = self._pairs({"status": status})
        return answer

    def _now(self) -> str:
        now = self._clock()
        second, text = self._second
        if second != int(now):
            second = int(now)
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = (second, text)
        return text + _MILLISECONDS[int((now - second) * 1000)]

    def _line(self, level: str, event: str, fields: dict[str, object]) -> bytes:
        head, pairs = self._head(level, event), self._pairs(fields)
        if self._json:
            return f'{{"time":"{self._now()}",{head}{"," if pairs else ""}{pairs}}}\n'.encode()
        return f"{self._now()} {head} {pairs}".rstrip().encode() + b"\n"

    def _head(self, level: str, event: str) -> str:
        return f'"level":"{level}","event":{json_value(event)}' if self._json else f"{level:<7} {event:<22}"

    def _pairs(self, fields: Mapping[str, object]) -> str:
        if self._json:
            return json_value(fields)[1:-1]
        return " ".join([f"{name}={text_value(value)}" for name, value in fields.items()])

    def _put(self, line: bytes, limit_bytes: int, wanted: int) -> None:
        with self._lock:
            if self._closing:
                return
            if self._pending_bytes + len(line) > limit_bytes:
                self._dropped += line.count(b"\n")
                return
            if self._dropped and not self._broken:
                # Told at the gap itself, before the first line that comes after it.
                line = self._notice() + line
            self._pending_bytes += len(line)
            self._lines.append(line)
            if self._wanted < wanted:
                self._wanted = wanted
                self._wakes.put(None)

    def _notice(self) -> bytes:
        count, self._dropped = self._dropped, 0
        return self._line("warning", "log lines dropped", {"count": count})

    def _run(self) -> None:
        closing = False
        while not closing:
            self._wakes.get()
            if self._wanted == _SOON and not self._closing:
                with contextlib.suppress(queue.Empty):
                    self._wakes.get(timeout=_ACCESS_DELAY_S)
            with self._lock:
                # Before the batches are taken: a line that comes too late for them asks anew.
                self._wanted, closing = 0, self._closing
            while batch := self._take():
                self._write(batch)

    def _take(self) -> bytes:
        batch = [self._lines.popleft() for _ in range(min(len(self._lines), _BATCH_LINES))]
        with self._lock:
            if not batch and not self._lines and self._dropped and not self._broken:
                batch = [self._notice()]
                self._pending_bytes += len(batch[0])
        return b"".join(batch)

    def _write(self, batch: bytes) -> None:
        rest = memoryview(b"\n" + batch if self._torn else batch)
        self._broken = False
        while rest and not self._broken:
            try:
                sent = os.write(self._fd, _untorn(rest) if self._is_shared else rest)
                self._torn, rest = rest[sent - 1] != ord("\n"), rest[sent:]
            except BlockingIOError:
                _wait_writable(self._fd)
            except OSError:
                # A reader that went away or a full disk must not stop the gateway; the next batch tries again.
                self._broken = True
        with self._lock:
            self._pending_bytes -= len(batch)
            self._dropped += bytes(rest[-len(batch) :]).count(b"\n")


def _milliseconds(seconds: float) -> str:
    """With one digit behind the point; most are among those that are written already."""
    tenths = round(seconds * 10_000)
    return _TENTHS[tenths] if 0 <= tenths < len(_TENTHS) else f"{seconds * 1000:.1f}"


# --- the descriptor ----------------------------------------------------------------------------------------------


def _open_or_null(fd: int) -> int:
    try:
        os.fstat(fd)
    except OSError:
        # The number of a closed STDERR would go to the next file opened, and the log into received data.
        return os.open(os.devnull, os.O_WRONLY)
    return fd


def _untorn(lines: memoryview) -> memoryview:
    """As many whole lines from the beginning as a pipe takes at once; of a line that is too long for that, all of it."""
    if len(lines) <= select.PIPE_BUF:
        return lines
    end = bytes(lines[: select.PIPE_BUF]).rfind(b"\n") + 1
    return lines[: end or bytes(lines).find(b"\n") + 1]


def _wait_writable(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    poll.poll()
