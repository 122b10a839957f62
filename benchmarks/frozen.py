"""The row `frozen`: how large the executables are, how quick they start, and how much memory they hold when idle."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Result, Series, table
from benchmarks.gateway_process import FROM_SOURCE, Gateway
from benchmarks.memory import memory_of
from benchmarks.settings import CannotRun, Settings
from release.glibc import floor_of

DIST = Path(__file__).resolve().parents[1] / "dist"
ONEFILE = DIST / "lightfile6-insights-gateway"
ONEDIR = DIST / "onedir" / "lightfile6-insights-gateway"
ROUNDS = 7
COLD_ROUNDS = 3
IDLE_S = 2.0
# Of the file to download.
WANTED_MB = 20.0
WANTED_START_S = 0.7
WANTED_IDLE_MIB = 80.0
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to start the gateway, with what it came to."""

    name: str
    size_mb: float | None
    warm_s: Series
    cold_s: Series | None
    healthcheck_s: Series
    idle_mib: Series


def run(settings: Settings) -> Result:
    """Start the one file, the folder and the sources in turn."""
    if not ONEFILE.exists():
        raise CannotRun("there is no dist/: run scripts/build first")
    commands = {
        "one file": ((str(ONEFILE),), ONEFILE),
        "folder (image)": ((str(ONEDIR / ONEFILE.name),), ONEDIR),
        "from source": (FROM_SOURCE, None),
    }
    measured = [_measure(settings, name, command, where) for name, (command, where) in commands.items()]
    result = Result("frozen: what users install")
    result.tables.append(table(("", "MB", "cold start s", "warm start s", "healthcheck s", "idle MiB"), [*map(_row, measured)]))
    onefile = measured[0]
    result.at_most("the one file, MB", WANTED_MB, Series((onefile.size_mb or 0.0,)))
    result.at_most("the one file, median of warm starts to /health, s", WANTED_START_S, Series((onefile.warm_s.median,)), 2)
    result.at_most("the one file, resident when idle, MiB", WANTED_IDLE_MIB, onefile.idle_mib)
    floor, cause = floor_of([ONEFILE, ONEDIR], cwd=DIST)
    result.notes.append(f"It needs glibc {floor[0]}.{floor[1]}, because of {cause.name if cause else 'nothing'}.")
    if not _can_forget():
        result.notes.append("Cold starts are not measured: only root may empty the page cache.")
    return result


def _measure(settings: Settings, name: str, command: Sequence[str], where: Path | None) -> Contestant:
    directory = settings.directory / "frozen"
    rounds = settings.rounds(ROUNDS)
    _start(directory, command)
    warm = [_start(directory, command) for _ in range(rounds)]
    cold = [_start(directory, command, before=_forget) for _ in range(settings.rounds(COLD_ROUNDS))] if _can_forget() else []
    with Gateway(directory, command=command) as gateway:
        checks = [_healthcheck(command, gateway.port) for _ in range(rounds)]
        time.sleep(IDLE_S)
        idle = memory_of(gateway.pid).now_mib
    return Contestant(
        name,
        None if where is None else _bytes_in(where) / 1e6,
        Series(tuple(warm)),
        Series(tuple(cold)) if cold else None,
        Series(tuple(checks)),
        Series((idle,)),
    )


def _start(directory: Path, command: Sequence[str], before: Callable[[], None] = lambda: None) -> float:
    """The seconds from the start of the process to an answer of `/health`."""
    before()
    begun = time.perf_counter()
    with Gateway(directory, command=command) as gateway:
        with urllib.request.urlopen(gateway.url("/health")) as answer:
            answer.read()
        seconds = time.perf_counter() - begun
        # A killed one would leave what it has unpacked.
        gateway.stop()
        return seconds


def _healthcheck(command: Sequence[str], port: int) -> float:
    begun = time.perf_counter()
    subprocess.run([*command, "healthcheck", "-p", str(port)], check=True)
    return time.perf_counter() - begun


def _can_forget() -> bool:
    return os.access(_DROP_CACHES, os.W_OK)


def _forget() -> None:
    """Have the kernel forget what it has read from the disk."""
    os.sync()
    _DROP_CACHES.write_text("3", "ascii")


def _bytes_in(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())


def _row(contestant: Contestant) -> tuple[str, ...]:
    return (
        contestant.name,
        "" if contestant.size_mb is None else f"{contestant.size_mb:.1f}",
        contestant.cold_s.show(2) if contestant.cold_s else "",
        contestant.warm_s.show(2),
        contestant.healthcheck_s.show(2),
        contestant.idle_mib.show(1),
    )
