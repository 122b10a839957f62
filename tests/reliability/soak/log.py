"""The log of a gateway that has ended: what it should never say, and without the thousands of lines that it says always."""

from __future__ import annotations

import json
from pathlib import Path

# Nothing happens to the disk in a soak, and no client is to be left without an answer.
NEVER = (
    "defect",
    "spool failed",
    "segment not cut",
    "aggregation failed",
    "request not answered",
    "requests abandoned",
    "log lines dropped",
)
_MARKS = tuple(f'"event":"{event}"' for event in NEVER)
_QUARANTINED = '"event":"quarantined"'
_ALWAYS = ('"event":"request done"', '"event":"request failed"')
_TORN = ".jsonl.open.rest"


def read_and_shorten(path: Path) -> tuple[list[str], int]:
    """The lines that should not be there, the first few, and how many torn segments a kill before this start had left.

    The lines of single requests are taken out of the file: half an hour has more of them than anybody would read.
    """
    faults: list[str] = []
    torn = 0
    kept = path.with_suffix(".kept")
    with path.open(encoding="utf-8", errors="replace") as log, kept.open("w", encoding="utf-8") as short:
        for line in log:
            if not any(mark in line for mark in _ALWAYS):
                short.write(line)
            if _QUARANTINED in line and json.loads(line)["file"].endswith(_TORN):
                torn += 1
            elif _QUARANTINED in line or any(mark in line for mark in _MARKS) or line.startswith("Traceback"):
                faults.append(line.rstrip())
    kept.replace(path)
    return faults[:3], torn
