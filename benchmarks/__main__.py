"""The command line of the benchmarks: runs rows and prints them as Markdown."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import aggregation, body, end_to_end, frozen, machine, reports, start
from benchmarks.figures import Result
from benchmarks.settings import MIB, CannotRun, Settings, Wrong

ROWS: dict[str, Callable[[Settings], Result]] = {
    "reports": reports.run,
    "body": body.run,
    "aggregate": aggregation.run,
    "start": start.run,
    "end-to-end": end_to_end.run,
    "frozen": frozen.run,
}
# Beside the checkout's other products, and not in /tmp, which may be no disk.
DIRECTORY = Path("build/benchmarks")
MEMORY = Path("/dev/shm")


def main() -> int:
    """Run the rows that were asked for."""
    options = _parse(sys.argv[1:])
    options.directory.mkdir(parents=True, exist_ok=True)
    memory = MEMORY if MEMORY.is_dir() else options.directory
    with _directory_in(options.directory) as directory, _directory_in(memory) as memory_directory:
        settings = _settings(options, Path(directory).resolve(), Path(memory_directory).resolve())
        print("\n".join(f"- {line}" for line in machine.describe(settings.directory)), end="\n\n", flush=True)
        try:
            for name in options.rows or _rows(settings):
                _run(name, settings)
        except (CannotRun, Wrong) as error:
            print("\n".join((f"benchmark: {error}", *getattr(error, "__notes__", ()))), file=sys.stderr)
            return 1
    return 0


def _rows(settings: Settings) -> list[str]:
    """The rows for which everything is there."""
    missing = {"end-to-end": settings.minio is None, "frozen": not frozen.ONEFILE.exists()}
    return [name for name in ROWS if not missing.get(name)]


def _directory_in(parent: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=parent, prefix="gateway-benchmark.", ignore_cleanup_errors=True)


def _run(name: str, settings: Settings) -> None:
    begun = time.monotonic()
    print(ROWS[name](settings).render(), flush=True)
    print(f"benchmark: {name} took {time.monotonic() - begun:.0f} seconds", file=sys.stderr, flush=True)


def _settings(options: argparse.Namespace, directory: Path, memory_directory: Path) -> Settings:
    return Settings(
        directory=directory,
        memory_directory=memory_directory,
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        body_bytes=options.size * MIB,
        bodies=options.bodies,
        bodies_bytes=options.bodies_size * MIB,
        counts=tuple(options.counts) if options.counts else None,
        minio=options.minio_binary,
    )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description="Measures the gateway against its peers, in turn.")
    add = parser.add_argument
    add(
        "rows",
        nargs="*",
        metavar="row",
        help=f"of {', '.join(ROWS)}; default: all; end-to-end wants --minio-binary, frozen wants scripts/build",
    )
    add("--rounds", type=_positive, help="how often each contestant is measured (reports 3, body 3, aggregate 2)")
    add("--seconds", type=float, help="of load in a round of reports (3), of watched delivery in start (6)")
    add("--connections", type=_positive, default=64, help="of the load generator (64)")
    add("--size", type=_positive, default=1024, metavar="MIB", help="of a large body, and of the lines to aggregate (1024)")
    add("--bodies", type=_positive, default=16, help="large bodies at once (16)")
    add("--bodies-size", type=_positive, default=256, metavar="MIB", help="of each of these (256)")
    add("--counts", type=_positive, nargs="+", help="how many things wait at a start, smallest first")
    add("--minio-binary", type=Path, help="a MinIO program, for end-to-end")
    add("--directory", type=Path, default=DIRECTORY, help=f"on the disk to be measured ({DIRECTORY})")
    options = parser.parse_args(arguments)
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return options


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")


if __name__ == "__main__":
    sys.exit(main())
