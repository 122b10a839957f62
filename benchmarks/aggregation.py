"""The row `aggregate`: from report lines to a gzip archive, on one core and on all, against `gzip -6`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.cores import Cores, every_core, pinned, server_core
from benchmarks.figures import Result, Series, in_turn, table
from benchmarks.lines import write_segments
from benchmarks.settings import MIB, Settings, Wrong
from gateway.config.schema import AggregationKeys

ROUNDS = 3
QUICK_BYTES = 256 * MIB
TOTAL_BYTES = 1024 * MIB
TIMEOUT_S = 300.0
WANTED_MB_PER_S = 300.0
# More than two runs of the same thing differ by; each core that does not help makes it less.
WANTED_GROWTH = 1.2
WANTED_MIB = 48.0
ONE = "gateway, one core"
ALL = "gateway, all cores"
GZIP = "`gzip -6`, one core"


@dataclass(frozen=True, slots=True)
class Made:
    """One archive: MB/s of what went in, processor seconds for each GB, how many times smaller, MiB above idle."""

    mb_per_s: float
    cpu_s_per_gb: float | None
    smaller: float
    above_mib: float | None


def run(settings: Settings) -> Result:
    """Measure all three in turn on the same lines."""
    sources = write_segments(settings.directory, settings.either(TOTAL_BYTES, QUICK_BYTES))
    contestants: dict[str, Callable[[], Made]] = {
        ONE: partial(_aggregate, settings.directory, sources, server_core()),
        ALL: partial(_aggregate, settings.directory, sources, every_core()),
        GZIP: partial(_gzip, settings.directory, sources[:1]),
    }
    made = in_turn(contestants, settings.rounds(ROUNDS))
    return _result(sum(path.stat().st_size for path in sources), made)


def _aggregate(directory: Path, sources: Sequence[Path], cores: Cores) -> Made:
    archive = directory / "made.jsonl.gz"
    archive.unlink(missing_ok=True)
    level = str(AggregationKeys().gzip_level)
    command = [sys.executable, "-m", "benchmarks.aggregating", str(archive), level, *map(str, sources)]
    told = json.loads(subprocess.run(pinned(command, cores), check=True, capture_output=True, timeout=TIMEOUT_S).stdout)
    _verify(archive, sources, told["lines"])
    size = sum(path.stat().st_size for path in sources)
    return Made(size / 1e6 / told["seconds"], told["cpu_s"] / size * 1e9, size / archive.stat().st_size, float(told["above_mib"]))


def _gzip(directory: Path, sources: Sequence[Path]) -> Made:
    """`gzip -6` of a part of the same bytes, which is as fast as all of them would be."""
    archive = directory / "zipped.jsonl.gz"
    size = sources[0].stat().st_size
    begun = time.perf_counter()
    with archive.open("wb") as target:
        subprocess.run(pinned(["gzip", "-6", "-c", str(sources[0])], server_core()), check=True, stdout=target, timeout=TIMEOUT_S)
    return Made(size / 1e6 / (time.perf_counter() - begun), None, size / archive.stat().st_size, None)


def _verify(archive: Path, sources: Sequence[Path], lines: int) -> None:
    """The archive holds the lines of its sources, and as many as were told."""
    wanted = hashlib.sha256()
    count = 0
    for source in sources:
        data = source.read_bytes()
        wanted.update(data)
        count += data.count(b"\n")
    with subprocess.Popen(["gzip", "-dc", str(archive)], stdout=subprocess.PIPE) as unpacked:
        found = subprocess.run(["sha256sum"], check=True, capture_output=True, stdin=unpacked.stdout, text=True).stdout.split()[0]
    if unpacked.returncode != 0 or found != wanted.hexdigest() or lines != count:
        raise Wrong("the archive of the gateway does not hold the lines of its sources")


def _result(size: int, made: dict[str, list[Made]]) -> Result:
    rates = {name: Series(tuple(each.mb_per_s for each in rounds)) for name, rounds in made.items()}
    rows = [
        (
            name,
            rates[name].show(),
            "" if name == ONE else rates[name].over(rates[ONE]).show(2),
            _show([each.cpu_s_per_gb for each in rounds], 2),
            f"{rounds[-1].smaller:.2f}",
            _show([each.above_mib for each in rounds], 1),
        )
        for name, rounds in made.items()
    ]
    result = Result(f"aggregate: {size / 1e6:,.0f} MB of report lines")
    head = ("", "MB/s", "of one core", "CPU s for each GB", "times smaller", "peak MiB above idle")
    result.tables.append(table(head, rows))
    result.at_least("aggregation on one core, MB/s", WANTED_MB_PER_S, rates[ONE], 0)
    result.at_least("aggregation, all cores / one core", WANTED_GROWTH, rates[ALL].over(rates[ONE]))
    result.at_most("aggregation, MiB above idle", WANTED_MIB, Series(tuple(each.above_mib or 0.0 for each in made[ALL])))
    result.notes.append(
        f"The gateway packs with level {AggregationKeys().gzip_level} of isal, hashes, counts and syncs. "
        "Each archive was unpacked with gzip and holds exactly the lines of its sources."
    )
    return result


def _show(values: Sequence[float | None], digits: int) -> str:
    known = tuple(value for value in values if value is not None)
    return Series(known).show(digits) if known else ""
