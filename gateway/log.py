"""The log: one line an event on STDERR, as text for people or as JSON for machines."""

from __future__ import annotations

import collections
import contextlib
import math
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.logline import json_value, text_value

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS: Final = ("text", "json")

EVENTS: Final[dict[str, str]] = {
    "gateway starting": "The program began; the line names its version.",
    "configuration in effect": "The settings this run uses, secrets masked.",
    "recovery done": "What an earlier run left in the spool has been found and put in order.",
    "quarantined": "Received data that cannot be read was set aside for a person; nothing was erased.",
    "worker started": "A worker process accepts requests; told where server.workers is above 1.",
    "worker not started": "A worker process could not be started again; the others go on, and it is tried again.",
    "worker died": "A worker process ended by itself; what it acknowledged is safe, and another takes its place.",
    "worker recovered": "What a dead worker left in the spool has been found and put in order.",
    "worker not recovered": "What a dead worker left cannot be put in order yet; nothing is lost and it is tried again.",
    "listening": "The gateway accepts requests at this address from now on.",
    "request done": "A request was answered with a status below 400.",
    "request failed": "A request was answered with a status of 400 or above.",
    "stopping begun": "The gateway takes no new requests and delivers what it holds.",
    "stopped": "The gateway has ended; the line says what was left in the spool.",
    "spool adopted": "What the Go edition left in cache_dir was taken over.",
    "spool failed": "The disk does not keep reports; clients get 503 or 507 until it does.",
    "spool recovered": "The disk keeps reports again; the line says how often and how long it failed.",
    "segment not cut": "A segment could not be renamed; it is written to further and tried again.",
    "segment cut again": "Segments are cut again; the line says how often and how long it failed.",
    "aggregation failed": "A batch could not be claimed, aggregated or sealed; nothing is lost and it is tried again.",
    "aggregation recovered": "Aggregation works again; the line says how often and how long it failed.",
    "request not answered": "The disk would neither keep a body nor let it go; the connection was closed without an answer.",
    "requests abandoned": "Requests were not finished within shutdown.request_timeout; their senders got no answer.",
    "drain timed out": "shutdown.drain_timeout passed with data left to send; it is sent after the next start.",
    "defect": "The gateway met an error that it has no rule for; please report the line. Nothing acknowledged is lost.",
    "log lines dropped": "STDERR was blocked or broken for so long that this many lines are missing here.",
    "library message": "A library the gateway stands on warned or failed.",
}
# A stream's events are named f"{stream} {verb}", so that a new stream brings its events along.
STREAM_EVENTS: Final[dict[str, str]] = {
    "sent": "The store has confirmed an object of this stream.",
    "failed": "An object of this stream could not be delivered; it is kept and will be tried again.",
    "recovered": "Delivery of this stream works again; the line says how often and how long it failed.",
}

_ACCESS_DELAY_S = 0.1
_BATCH_LINES = 4096
_SOON, _NOW = 1, 2
_OUTCOMES = (("info", "request done"), ("info", "request failed"), ("warning", "request failed"), ("debug", "request done"))
_DONE, _PROBED = 0, 3
_ACCESS_LEVELS = tuple(LEVELS[level] for level, _ in _OUTCOMES)
# Asked every few seconds by machines; only what they are refused is news.
_PROBES = frozenset({"/health", "/ready", "/metrics"})
_TENTHS = tuple(f"{n // 10}.{n % 10}" for n in range(1000))
_MILLISECONDS = tuple(f".{n:03d}Z" for n in range(1000))


# A request's method, path, user and address, then the seconds to its answer, the bytes of its body, and its id.
Who = tuple[str, str, str | None, str | None]
Request = tuple[Who, float, int, str]


class Log:
    """Takes events from any thread without blocking it; a thread of its own writes them in batches.

    Make it early, once in a process and after any fork: the thread does not follow one.

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
        self._known: dict[Who, str] = {}
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
        self._thread.start()

    def debug(self, event: str, /, **fields: object) -> None:
        """Tell what only a developer wants to see."""
        self.event("debug", event, fields)

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

    def access(self, path: str, status: int, requests: Sequence[Request], **fault: str) -> None:
        """Tell requests of one path that were answered together; made of ready parts because thousands come in a second.

        Args:
            path: without a query.
            status: of all the answers.
            requests: what differs.
            fault: fields that say what was wrong with them.
        """
        outcome = (status >= 400) + (status >= 500)
        if outcome == _DONE and path in _PROBES:
            outcome = _PROBED
        if self._threshold > _ACCESS_LEVELS[outcome]:
            return
        now, head, answer = self._now(), self._heads[outcome], self._pairs({"status": status, **fault})
        line_of = self._json_access if self._json else self._text_access
        lines = [
            line_of(now, head, self._known.get(who) or self._know(who), answer, _milliseconds(seconds), size, request_id)
            for who, seconds, size, request_id in requests
        ]
        self._put("".join(lines).encode(), self._access_limit_bytes, _SOON)

    @staticmethod
    def _text_access(now: str, head: str, who: str, answer: str, ms: str, size: int, request_id: str) -> str:
        told = request_id if request_id.isalnum() else text_value(request_id)
        return f"{now} {head} {who} {answer} duration_ms={ms} received_bytes={size} request_id={told}\n"

    @staticmethod
    def _json_access(now: str, head: str, who: str, answer: str, ms: str, size: int, request_id: str) -> str:
        told = f'"{request_id}"' if request_id.isalnum() else json_value(request_id)
        return f'{{"time":"{now}",{head},{who},{answer},"duration_ms":{ms},"received_bytes":{size},"request_id":{told}}}\n'

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what is waiting, at most for so long; true when all of it is out. Later events are discarded."""
        with self._lock:
            self._closing = True
            self._wakes.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and not self._dropped

    def _know(self, who: Who) -> str:
        """Render what comes again with every request of a client; bounded for the sake of clients that make it up."""
        pairs = self._pairs(dict(zip(("method", "path", "user", "ip"), who, strict=True)))
        if len(pairs) < 300:
            if len(self._known) >= 4096:
                self._known.clear()
            self._known[who] = pairs
        return pairs

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


class Repeated:
    """A failure that repeats: told when it begins, as a count while it lasts, and when it ends.

    One that goes on as another `kind` of failure is told at once, since another person may have to act.
    For one thread at a time.

    Args:
        log: where it is told.
        failed_event: the event at the beginning and, with `count` and `duration_s`, while it lasts.
        ended_event: the event at the end, at info, with the whole `count` and `duration_s`.
        level: the level of the failure.
        interval_s: the least time between two lines of one kind while it lasts.
        clock: a monotonic clock in seconds.
    """

    def __init__(
        self,
        log: Log,
        failed_event: str,
        ended_event: str,
        *,
        level: str = "warning",
        interval_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._level = log, level
        self._failed_event, self._ended_event = failed_event, ended_event
        self._interval_s, self._clock = interval_s, clock
        self._count = 0
        self._began_s = 0.0
        self._told_s: dict[object, float] = {}

    @property
    def lasting(self) -> bool:
        """Whether the failure has begun and not ended."""
        return self._count > 0

    def failed(self, **fields: object) -> None:
        """Note a failure, the first or one more."""
        now_s, kind = self._clock(), fields.get("kind")
        self._count += 1
        if self._count == 1:
            self._began_s = now_s
        elif now_s - self._told_s.get(kind, -math.inf) < self._interval_s:
            return
        else:
            fields |= {"count": self._count, "duration_s": now_s - self._began_s}
        self._told_s[kind] = now_s
        self._log.event(self._level, self._failed_event, fields)

    def ended(self, **fields: object) -> None:
        """Note a success; it is told only if there was a failure before it."""
        if self._count:
            fields |= {"count": self._count, "duration_s": self._clock() - self._began_s}
            self._log.event("info", self._ended_event, fields)
            self._count = 0
            self._told_s.clear()


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
