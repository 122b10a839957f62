"""All rows, and what became of one that was run: one that cannot be run does not end the others."""

from __future__ import annotations

import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import aggregation, bodies, end_to_end, frozen, packets, rate, reports, start, workers
from benchmarks.figures import Result
from benchmarks.settings import CannotRun, Settings, Wrong

CHECKOUT = Path(__file__).resolve().parents[1]
Row = Callable[[Settings], Result]

# The bodies come late: they leave the disk in another mood than they found it.
ROWS: dict[str, Row] = {
    "reports": reports.run,
    "cores": workers.run,
    "packets": packets.run,
    "large-reports": reports.run_large,
    "rate": rate.run,
    "aggregate": aggregation.run,
    "end-to-end": end_to_end.run,
    "specimens": end_to_end.run_specimens,
    "start": start.run,
    "bodies": bodies.run,
    "frozen": frozen.run,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row: its result, or why there is none; and how long that took."""

    name: str
    seconds: float
    result: Result | None = None
    fault: str = ""


def run(name: str, row: Row, settings: Settings) -> Outcome:
    """Run one row in directories of its own, which are gone afterwards."""
    begun = time.monotonic()
    try:
        with _directory_in(settings.directory) as directory, _directory_in(settings.memory_directory) as memory:
            result = row(replace(settings, directory=Path(directory), memory_directory=Path(memory)))
    # Whatever it is, twenty minutes of other rows are not thrown away for it; the exit code and the table tell of it.
    except Exception as error:  # noqa: BLE001
        return Outcome(name, time.monotonic() - begun, fault=_without_places(_reason(error), settings))
    return Outcome(name, time.monotonic() - begun, result)


def _reason(error: Exception) -> str:
    """What stands in the tables; where nobody foresaw the error, the traceback."""
    if isinstance(error, CannotRun | Wrong):
        return "\n".join((str(error), *getattr(error, "__notes__", ())))
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error}\n{_text(error.stderr)}"
    return "".join(traceback.format_exception(error))


def _without_places(text: str, settings: Settings) -> str:
    """The same without where the checkout and the directories are, which is nothing for a page that is published."""
    for place in (settings.directory, settings.memory_directory, CHECKOUT):
        text = text.replace(f"{place}/", "")
    return text


def _directory_in(parent: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=parent, prefix="row.", ignore_cleanup_errors=True)


def _text(said: str | bytes | None) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said or ""
