"""The row `aggregate`: from report lines to a gzip archive, against `gzip -6`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import Result, Series, table
from benchmarks.lines import write_segments
from benchmarks.settings import MIB, Settings, Wrong
from gateway.config import Aggregation

ROUNDS = 2
WANTED_RATIO = 4.0
WANTED_MIB = 48.0


def run(settings: Settings) -> Result:
    """Measure both in turn on the same lines."""
    directory = settings.directory / "aggregate"
    directory.mkdir()
    sources = write_segments(directory, settings.body_bytes)
    size = sum(path.stat().st_size for path in sources)
    made, zipped = directory / "made.jsonl.gz", directory / "zipped.jsonl.gz"
    told: list[dict[str, Any]] = []
    seconds: list[float] = []
    for _ in range(settings.rounds or ROUNDS):
        made.unlink(missing_ok=True)
        told.append(_aggregate(made, sources))
        seconds.append(_gzip(zipped, sources))
    _verify(made, sources, told[-1]["lines"])
    mine = Series(tuple(size / MIB / each["seconds"] for each in told))
    theirs = Series(tuple(size / MIB / each for each in seconds))
    packed = {"gateway": size / made.stat().st_size, "gzip": size / zipped.stat().st_size}
    return _result(size, (mine, theirs), packed, Series(tuple(each["above_mib"] for each in told)))


def _aggregate(archive: Path, sources: list[Path]) -> dict[str, Any]:
    level = str(Aggregation().gzip_level)
    command = [sys.executable, "-m", "benchmarks.aggregating", str(archive), level, *map(str, sources)]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return told


def _gzip(archive: Path, sources: list[Path]) -> float:
    """Seconds that `gzip -6` takes for the same bytes, fed by `cat` on the other core."""
    begun = time.perf_counter()
    with archive.open("wb") as target, subprocess.Popen(["cat", *map(str, sources)], stdout=subprocess.PIPE) as lines:
        subprocess.run(["gzip", "-6", "-c"], check=True, stdin=lines.stdout, stdout=target)
    return time.perf_counter() - begun


def _verify(archive: Path, sources: list[Path], lines: int) -> None:
    """The archive holds the lines of its sources, and as many as were told."""
    wanted = hashlib.sha256()
    count = 0
    for source in sources:
        data = source.read_bytes()
        wanted.update(data)
        count += data.count(b"\n")
    with subprocess.Popen(["gzip", "-dc", str(archive)], stdout=subprocess.PIPE) as unpacked:
        found = subprocess.run(["sha256sum"], check=True, capture_output=True, stdin=unpacked.stdout, text=True).stdout.split()[0]
    if found != wanted.hexdigest() or lines != count:
        raise Wrong("the archive of the gateway does not hold the lines of its sources")


def _result(size: int, rates: tuple[Series, Series], packed: Mapping[str, float], above: Series) -> Result:
    mine, theirs = rates
    result = Result(f"aggregate: {size // MIB:,} MiB of report lines")
    rows = [
        ("gateway (level 2 of isal, hashed, counted, synced)", mine.show(), f"{packed['gateway']:.2f}", above.show(1)),
        ("`gzip -6`", theirs.show(), f"{packed['gzip']:.2f}", ""),
    ]
    result.tables.append(table(("", "MiB/s", "times smaller", "peak MiB above idle"), rows))
    result.at_least("gateway / `gzip -6`", WANTED_RATIO, mine.over(theirs))
    result.at_most("MiB above idle", WANTED_MIB, above)
    result.notes.append("The archive was unpacked with gzip and holds exactly the lines of its sources.")
    return result
