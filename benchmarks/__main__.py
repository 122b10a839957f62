"""The command line of the benchmarks: runs rows and prints them as Markdown."""

from __future__ import annotations

import argparse
import ipaddress
import signal
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from reliability.table import put_between

from benchmarks import cores, document, frozen, machine, packages, rows
from benchmarks.rows import ROWS, Outcome
from benchmarks.settings import MIB, Peer, Settings

# Beside the checkout's other products, and not in /tmp, which may be no disk.
DIRECTORY = Path("build/benchmarks")
MEMORY = Path("/dev/shm")
# What has been found so far, for who ends a run early.
LATEST = "latest.md"
MARK = "the measurement"


def main() -> int:
    """Run the rows that were asked for; 1 if any could not be measured."""
    options = _parse(sys.argv[1:])
    # Else whatever a row has started would go on when the run is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    packages.install_missing()
    options.directory.mkdir(parents=True, exist_ok=True)
    latest = options.directory / LATEST
    described = [*machine.describe(options.directory), cores.describe(), *_as_asked(options)]
    outcomes = _run(options, described, latest)
    text = document.render(described, outcomes)
    print(text, end="")
    if options.write:
        put_between(options.write, MARK, text)
    return 1 if any(outcome.result is None for outcome in outcomes) else 0


def _run(options: argparse.Namespace, described: list[str], latest: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    memory = MEMORY if MEMORY.is_dir() else options.directory
    with _directory_in(options.directory) as directory, _directory_in(memory) as memory_directory:
        settings = _settings(options, Path(directory).resolve(), Path(memory_directory).resolve())
        try:
            for name in options.rows or _all_rows():
                outcomes.append(rows.run(name, ROWS[name], settings))
                latest.write_text(document.render(described, outcomes), "utf-8")
                print(f"benchmark: {document.summary(outcomes[-1])}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            print(f"benchmark: ended early; what was found is in {latest}", file=sys.stderr)
            raise SystemExit(128 + signal.SIGINT) from None
    return outcomes


def _all_rows() -> list[str]:
    """Every row; the executables are measured where they were built."""
    return [name for name in ROWS if name != "frozen" or frozen.ONEFILE.exists()]


def _as_asked(options: argparse.Namespace) -> list[str]:
    return ["**a quick run, to see that everything works: its figures say little**"] if options.quick else []


def _directory_in(parent: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=parent, prefix="gateway-benchmark.", ignore_cleanup_errors=True)


def _settings(options: argparse.Namespace, directory: Path, memory_directory: Path) -> Settings:
    return Settings(
        directory=directory,
        memory_directory=memory_directory,
        quick=options.quick,
        asked_rounds=options.rounds,
        asked_seconds=options.seconds,
        connections=options.connections,
        body_bytes=options.body_size * MIB,
        bodies=options.bodies,
        peers=tuple(options.peer),
        minio=options.minio_binary,
    )


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/benchmark", description="Measures the gateway against its peers, in turn.")
    add = parser.add_argument
    add("rows", nargs="*", metavar="row", help=f"of {', '.join(ROWS)}; default: all, frozen only after scripts/build")
    add("--quick", action="store_true", help="try everything in about three minutes; the figures say little")
    add("--write", type=Path, metavar="FILE", help=f"put the tables into a document, between its marks for {MARK}")
    add("--peer", type=peer, action="append", default=[], metavar="NAME=URL", help="a running server to POST small reports to")
    add("--rounds", type=_positive, help="how often each contestant is measured")
    add("--seconds", type=float, help="of load in a round")
    add("--connections", type=_positive, default=64, help="of the load generators (64)")
    add("--body-size", type=_positive, default=1024, metavar="MIB", help="of a large body (1024)")
    add("--bodies", type=_positive, default=32, help="large bodies at once (32)")
    add("--minio-binary", type=Path, help="a MinIO program; default: the one that the tests build")
    add("--directory", type=Path, default=DIRECTORY, help=f"on the disk to be measured ({DIRECTORY})")
    options = parser.parse_args(arguments)
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    if options.write and not options.write.is_file():
        parser.error(f"there is no {options.write} to write into")
    return options


def peer(text: str) -> Peer:
    """Read `NAME=URL`; the URL has to be of this machine, by an address of the loopback interface."""
    name, _, url = text.partition("=")
    if not name or not url.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URL")
    try:
        is_here = ipaddress.ip_address(urlsplit(url).hostname or "").is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise argparse.ArgumentTypeError(f"{url} is not of this machine: nobody else's is put under load; name it by 127.0.0.1")
    return Peer(name, url)


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")


if __name__ == "__main__":
    sys.exit(main())
