"""What a `cache_dir` of the Go edition is made of: the names it gave, and what they say."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote_to_bytes

from gateway.core import clock
from gateway.spool.spool import Spool

# It did not write down the sender of a file, and an archive does not name those of its reports.
UNKNOWN_USER = "unknown"
STRANGE = "not a name that the Go edition gives"

# An instant after this one is a mistake of a clock, which would take the clock of this program along for good.
_END_NS = clock.instant_of("2100010100")
_PID = r"(0|[1-9][0-9]{0,9})"
_REPORT = re.compile(r"[0-9]+\.[0-9]+\.(.*)", re.DOTALL)
_SAFE_REPORT = re.compile(rf"([0-9]{{19}})\.{_PID}\.(.*)", re.DOTALL)
_ARCHIVE = re.compile(r"aggregate_([0-9]+)\.gz")
# A fraction never ends in a zero, and a uri may begin with digits and a dot: where both readings are possible it is a
# fraction, because only one instant in a million has none.
_FILE = re.compile(rf"([0-9]{{14}})(?:\.([0-9]{{0,5}}[1-9]))?\.{_PID}\.(.+)", re.DOTALL)


@dataclass(slots=True)
class Adopted:
    """What was adopted; the fields of the log line."""

    reports: int = 0
    files: int = 0
    quarantined: int = 0
    # Of this edition, whose FORMAT was lost: files, and batches.
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Left:
    """A directory of the Go edition that was moved aside to be emptied.

    Attributes:
        stream: the name of the stream whose it was.
        root: where it is now.
        target: where the stream's received data waits.
        is_of_files: whether that is files.
    """

    spool: Spool
    stream: str
    root: Path
    target: Path
    adopted: Adopted
    is_of_files: bool = False

    def quarantine(self, path: Path, reason: str) -> None:
        """Set something in it aside for a person."""
        self.spool.quarantine.take(self.stream, path, reason)
        self.adopted.quarantined += 1


def is_plain_file(path: Path) -> bool:
    """Whether it is a file that can be read to its end: no link, no pipe."""
    return stat.S_ISREG(path.lstat().st_mode)


# --- reports -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReportName:
    """The parts of a flat file's name: `<nanoseconds>.<pid>.<user>`; the user is as sent and may hold dots."""

    timestamp: int
    pid: int
    user: str


def user_of(name: str) -> str | None:
    """The user in anything of a flat file's shape, None for other names."""
    match = _REPORT.fullmatch(name)
    return match[1] if match else None


def parse_report_name(name: str) -> ReportName | None:
    """Return the parts of a flat file's name, None if no name of ours can be made of them that is only this file's."""
    match = _SAFE_REPORT.fullmatch(name)
    if match is None or int(match[1]) >= _END_NS:
        return None
    return ReportName(int(match[1]), int(match[2]), match[3])


def fresh_report_name(spool: Spool, user: str) -> str:
    """A flat file's name that no other file has; a user that would make it too long is cut."""
    name = f"{spool.timestamps.next():019d}.{spool.pid}.{user}"
    return os.fsdecode(os.fsencode(name)[: spool.directories.max_name_bytes])


def archive_instant(name: str) -> str | None:
    """The digits in the name of an archive, None for other names."""
    match = _ARCHIVE.fullmatch(name)
    return match[1] if match else None


# --- files -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileName:
    """The parts of a received file's name: `<YYYYmmddHHMMSS>[.<fraction>].<pid>.<escaped uri>`.

    Attributes:
        received: nanoseconds since the epoch, None where the digits are no instant that can be.
    """

    received: int | None
    pid: int
    uri: str


def parse_file_name(name: str) -> FileName | None:
    """Return the parts of a received file's name, or None if it is not one."""
    match = _FILE.fullmatch(name)
    if match is None:
        return None
    digits, fraction, pid, uri = match.groups()
    unescaped = unquote_to_bytes(os.fsencode(uri.replace("+", " "))).decode("utf-8", "surrogateescape")
    return FileName(_instant(digits, fraction or ""), int(pid), unescaped)


def _instant(digits: str, fraction: str) -> int | None:
    try:
        moment = datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    instant = int(moment.timestamp()) * clock.NANOSECONDS + int(fraction.ljust(9, "0"))
    return instant if 0 <= instant < _END_NS else None
