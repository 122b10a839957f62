"""The memory of a process as Linux tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_FIELDS = re.compile(r"^(VmRSS|VmHWM|RssAnon):\s+(\d+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MiB.

    Attributes:
        now_mib: at the moment.
        peak_mib: the most since the start, or since `forget_peak`.
        anonymous_mib: the part of `now_mib` that no file backs.
    """

    now_mib: float
    peak_mib: float
    anonymous_mib: float


def memory_of(pid: int) -> Memory:
    """Read the memory of a process."""
    text = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    kib = {name: int(value) for name, value in _FIELDS.findall(text)}
    return Memory(kib["VmRSS"] / 1024, kib["VmHWM"] / 1024, kib["RssAnon"] / 1024)


def forget_peak(pid: int) -> None:
    """Have the peak begin anew at what the process holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")
