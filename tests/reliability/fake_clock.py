"""A clock of the row's own for the gateway, set while it runs, by libfaketime; and a store to which it shows the true time.

Only what is the time of day is false: durations, and so every interval and deadline, are true.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reliability.proxy import Exchange, resigned
from reliability.row import CannotRun

# No whole hour from UTC: what takes local time for UTC shows. The sign is that of POSIX.
_AHEAD = timedelta(hours=5, minutes=45)
_ZONE = "FAKE-5:45"
_WHERE = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)


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
    }


def fixed(now: datetime, *, stands: bool) -> dict[str, str]:
    """The environment of a gateway whose clock shows this now and goes on, also over a restart, or stands there for ever."""
    return _environment() | {"FAKETIME": _standing(now) if stands else _shifted(now - datetime.now(UTC))}


def _shifted(by: timedelta) -> str:
    return f"{by.total_seconds():+.6f}"


def _standing(instant: datetime) -> str:
    # libfaketime takes what it reads for local time.
    return f"{instant.astimezone(UTC) + _AHEAD:%Y-%m-%d %H:%M:%S}"


class FakeClock:
    """A clock that goes as the true one, so much before or after it, and can be set while the gateway runs.

    Args:
        file: where it is set; it is read at every look at the clock, which makes the gateway slow.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.environment = _environment() | {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
        self._ahead = timedelta()
        self.shift(timedelta())

    def now(self) -> datetime:
        """What it shows."""
        return datetime.now(UTC) + self._ahead

    def shift(self, by: timedelta) -> None:
        """Let it be so much ahead of the true time from now on."""
        self._ahead = by
        self._set(_shifted(by))

    def show(self, now: datetime) -> None:
        """Set it to this instant, from which it goes on."""
        self.shift(now - datetime.now(UTC))

    def _set(self, text: str) -> None:
        # It is read at every look at the clock, and never to be found empty.
        draft = self._file.with_suffix(".draft")
        draft.write_text(text + "\n")
        os.replace(draft, self._file)


async def on_time(exchange: Exchange) -> None:
    """A fault of the proxy that is none: a store refuses what was signed at a false time, so it is signed anew."""
    now = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}".encode()
    head = re.sub(rb"(?i)(\r\nx-amz-date: *)[^\r]*", rb"\g<1>" + now, exchange.request.head)
    await exchange.answer(await exchange.forward(resigned(head, exchange.proxy.secret_key)))
