"""The soak: a mixed load for a long time, with kills, stops and outages at random instants."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.core.build_info import of_checkout
from reliability.alone import say
from reliability.row import Site
from reliability.soak.report import Report
from reliability.soak.run import Soak
from reliability.soak.summary import render
from reliability.table import put_between
from testkit import CHECKOUT
from testkit.servers.minio import MinioProcess, binary
from testkit.servers.source import cache_folder

# On the disk of the checkout, and not in /tmp, which may be no disk.
FOLDER = CHECKOUT / "build" / "soak"


def main() -> int:
    """Soak for as long as was asked for, and print the figures; return 1 if it has not held."""
    options = _parse()
    folder = FOLDER / str(options.seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say(f"seed {options.seed}: give it with --seed to have the same steps again")
    minio = MinioProcess(binary(cache=cache_folder(), say=say), folder / "minio")
    minio.start()
    try:
        report = soak(Site(folder, minio), options.minutes, options.seed, say, workers=options.workers)
    finally:
        minio.stop()
    summary = render(report, of_checkout(CHECKOUT).number)
    print(summary)
    if options.write:
        put_between(options.write, "the soak", summary)
    if not report.faults:
        shutil.rmtree(folder)
    return int(bool(report.faults))


def soak(site: Site, minutes: float, seed: int, say: Callable[[str], None] = lambda _: None, *, workers: int = 1) -> Report:
    """Soak for about so many minutes; each step stands with its instant in `timeline.txt` too."""
    with (site.folder / "timeline.txt").open("w", buffering=1) as timeline:

        def tell(text: str) -> None:
            timeline.write(f"{text}\n")
            say(text)

        return Soak(site, minutes, seed, tell, workers=workers).run()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Soaks the gateway, and prints what became of all it got.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of all that is random (a new one)")
    parser.add_argument("--workers", type=int, default=1, help="how many processes receive (1)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the summary into this document, between its marks")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
