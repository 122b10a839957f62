"""The soak, as a command and as a row: a mixed load for a long time, with kills, stops and outages at random instants."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Callable

from integration.minio import CHECKOUT, MinioProcess, binary, cache_folder

from gateway.version import of_checkout
from reliability.row import Outcome, Row, Site
from reliability.soak_report import Report
from reliability.soak_run import Soak
from reliability.soak_summary import render

# On the disk of the checkout, and not in /tmp, which may be no disk.
FOLDER = CHECKOUT / "build" / "soak"
SEED = 20_261_121
# A tenth of the matrix runs with every change, and the short soak with it; the long one is a command of its own. In less
# than a minute there would not be enough quiet points to tell what grows.
_ROW_MINUTES, _LEAST_MINUTES = 2.0, 1.0
_MINUTES_OF_SHARE = 20.0


def main() -> int:
    """Soak for as long as was asked for, and print the figures; return 1 if it has not held."""
    options = _parse()
    folder = FOLDER / str(options.seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _say(f"seed {options.seed}: give it with --seed to have the same steps again")
    minio = MinioProcess(binary(cache=cache_folder(), say=_say), folder / "minio")
    minio.start()
    try:
        report = soak(Site(folder, minio), options.minutes, options.seed, _say)
    finally:
        minio.stop()
    print(render(report, of_checkout(CHECKOUT).number))
    if not report.faults:
        shutil.rmtree(folder)
    return int(bool(report.faults))


def soak(site: Site, minutes: float, seed: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """Soak for about so many minutes; each step stands with its instant in `timeline.txt` too."""
    with (site.folder / "timeline.txt").open("w", buffering=1) as timeline:

        def tell(text: str) -> None:
            timeline.write(f"{text}\n")
            say(text)

        return Soak(site, minutes, seed, tell).run()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Soaks the gateway, and prints what became of all it got.")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="of all that is random (a new one)")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _row(site: Site) -> Outcome:
    report = soak(site, min(max(_LEAST_MINUTES, _MINUTES_OF_SHARE * site.share), _ROW_MINUTES), SEED)
    outcome = Outcome()
    outcome.add(report.account, f"seed {SEED}")
    outcome.tried = report.deeds.total()
    # The examples of the account are in it already.
    outcome.faults = list(report.faults)
    outcome.notes.append(render(report, of_checkout(CHECKOUT).number))
    return outcome


ROWS: tuple[Row, ...] = (
    Row("soak", "Soak", "mixed load for some minutes, with kills, stops and outages at random instants", _row),
)


if __name__ == "__main__":
    sys.exit(main())
