"""A clock of the row's own for the gateway, set while it runs, by libfaketime; and a store to which it shows the true time.

Only what is the time of day is false: durations, and so every interval and deadline, are true.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reliability.confined import Confined
from reliability.proxy.exchange import Exchange
from reliability.proxy.faults import resigned
from reliability.row import CannotRun
from testkit.gateway_process import executable

# No whole hour from UTC: what takes local time for UTC shows. The sign is that of POSIX.
_AHEAD = timedelta(hours=5, minutes=45)
_ZONE = "FAKE-5:45"
_WHERE = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
# What of libfaketime's outlives a process that is killed.
_LEFT = ("/dev/shm/faketime_shm_{}", "/dev/shm/sem.faketime_sem_{}")
# A start takes less, and no row shows a time that is so near to the true one.
_HOLD = timedelta(minutes=5)


def library() -> Path:
    """The libfaketime of this machine."""
    for pattern in _WHERE:
        for found in sorted(Path("/").glob(pattern.removeprefix("/"))):
            return found
    raise CannotRun("there is no libfaketime (Debian: faketime)")


def _environment() -> dict[str, str]:
    return {
        "LD_PRELOAD": str(library()),
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # Its mending of what old C libraries did has every wait of a thread end at once, and begin again.
        "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        "TZ": _ZONE,
        # It takes the end of Python's `time.sleep`, which is told on the clock that is true, for an instant of the false one:
        # at the epoch that is half a century away. The gateway never sleeps so, but where it runs from a checkout it waits for
        # git to say which version it is, and here it finds none.
        "PATH": "/nonexistent",
    }


def fixed(now: datetime, *, stands: bool) -> dict[str, str]:
    """The environment of a gateway whose clock shows this now and goes on, also over a restart, or stands there for ever."""
    return _environment() | {"FAKETIME": _standing(now) if stands else _shifted(now - datetime.now(UTC))}


def _shifted(by: timedelta) -> str:
    return f"{by.total_seconds():+.6f}"


def _standing(instant: datetime) -> str:
    # libfaketime takes what it reads for local time.
    return f"{instant.astimezone(UTC) + _AHEAD:%Y-%m-%d %H:%M:%S}"


@dataclass
class _Setting:
    """How much a clock is ahead, and between which true instants it may be so; None for until now."""

    ahead: timedelta
    since: datetime
    until: datetime | None = None


class FakeClock:
    """A clock that goes as the true one, so much before or after it, and can be set while the gateway runs.

    Args:
        file: where it is set; it is read at every look at the clock, which makes the gateway slow.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = _environment() | {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
        self._settings: list[_Setting] = []
        self.shift(timedelta())

    def now(self) -> datetime:
        """What it shows."""
        return datetime.now(UTC) + self._settings[-1].ahead

    def shown(self, start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
        """Between which instants what it showed was, from one true instant to another: a pair for each time it was set."""
        return [
            (max(start, one.since) + one.ahead, min(end, one.until or end) + one.ahead)
            for one in self._settings
            if one.since <= end and (one.until is None or one.until >= start)
        ]

    def shift(self, by: timedelta) -> None:
        """Let it be so much ahead of the true time from now on."""
        begun = datetime.now(UTC)
        self._set(_shifted(by))
        if self._settings:
            self._settings[-1].until = datetime.now(UTC)
        self._settings.append(_Setting(by, begun))

    def show(self, now: datetime) -> None:
        """Set it to this instant, from which it goes on."""
        self.shift(now - datetime.now(UTC))

    def _set(self, text: str) -> None:
        # It is read at every look at the clock, and never to be found empty.
        draft = self._file.with_suffix(".draft")
        draft.write_text(text + "\n")
        os.replace(draft, self._file)


class Clocked(Confined):
    """A gateway with a clock of its own, of which nothing is left behind, however it ends."""

    _first = 0

    def launch(self, port: int = 0) -> None:
        """See `Gateway.launch`."""
        super().launch(port)
        self._first = self._running().pid

    def wait(self, timeout_s: float = 30.0) -> int:
        """See `Gateway.wait`."""
        code = super().wait(timeout_s)
        self._clear()
        return code

    def kill(self) -> None:
        """See `Gateway.kill`."""
        try:
            super().kill()
        finally:
            self._clear()

    def _clear(self) -> None:
        for pattern in _LEFT:
            with suppress(OSError):
                Path(pattern.format(self._first)).unlink(missing_ok=True)

    def must_show(self, now: datetime) -> None:
        """Raise `CannotRun` where the executable did not start at this time, as one does that is linked statically."""
        started = datetime.fromisoformat(str(self.events("gateway starting")[0]["time"]))
        if abs(started - now) > _HOLD:
            raise CannotRun(f"libfaketime has no hold on {' '.join(executable())}: it started at {started}, and not at {now}")


def on_time(head: bytes, headers: Mapping[str, str], secret_key: str) -> bytes:
    """The head of a request to the store, signed anew at the true time: one that was signed at a false one is refused."""
    if "x-amz-date" not in headers:
        return head
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}".encode()
    return resigned(re.sub(rb"(?i)(\r\nx-amz-date: *)[^\r]*", rb"\g<1>" + now, head), secret_key)


async def passed_on_time(exchange: Exchange) -> None:
    """A fault of the proxy that is none."""
    await exchange.answer(await _forwarded(exchange))


async def unheard_on_time(exchange: Exchange) -> None:
    """The store does it, and its answer is lost."""
    await _forwarded(exchange)
    exchange.reset()


async def _forwarded(exchange: Exchange) -> bytes:
    request = exchange.request
    return await exchange.forward(on_time(request.head, request.headers, exchange.proxy.secret_key))
