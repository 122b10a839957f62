"""The command line of the crash matrix: runs rows, keeps what came of them, prints the table."""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gateway.core.build_info import of_checkout
from reliability.alone import run_alone, say
from reliability.row import Row
from reliability.rows import ROWS
from reliability.table import put_between, render
from testkit import CHECKOUT
from testkit.servers.minio import binary
from testkit.servers.source import cache_folder

# On the disk of the checkout, and not in /tmp, which may be no disk.
FOLDER = CHECKOUT / "build" / "crash-matrix"
STATE = FOLDER / "state.json"


def main() -> int:
    """Run the rows that were asked for and are not done; return 1 if any of the table has not held."""
    options = _parse()
    FOLDER.mkdir(parents=True, exist_ok=True)
    state = _state(options)
    wanted = [row for row in ROWS if not options.rows or row.name in options.rows or row.group in options.rows]
    _run([row for row in wanted if row.name not in state["rows"]], state, options)
    table = render(ROWS, state)
    print(table)
    if options.write:
        put_between(options.write, "the table", table)
    bad = [name for name, result in state["rows"].items() if result.get("faults") or (options.strict and "cannot" in result)]
    if bad:
        say(f"not held, or not done: {', '.join(bad)}")
    return int(bool(bad))


def _run(rows: list[Row], state: dict[str, Any], options: argparse.Namespace) -> None:
    """Run rows, some at a time; what is done is kept at once, so that an interrupted run loses no more than these."""
    # Before several rows want it at the same time.
    binary(cache=cache_folder(), say=say)
    deadline = time.monotonic() + options.minutes * 60

    def run(row: Row) -> tuple[Row, dict[str, Any] | None]:
        return row, None if time.monotonic() > deadline else run_alone(row, FOLDER / row.name, options.share)

    late = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for row, result in pool.map(run, rows):
            if result is None:
                late.append(row.name)
                continue
            state["rows"][row.name] = result
            STATE.write_text(json.dumps(state, indent=1))
    if late:
        say(f"the time was up before {', '.join(late)}: run the same command again to go on")


def _state(options: argparse.Namespace) -> dict[str, Any]:
    """What an interrupted run of the same commit has done; begun anew for another."""
    commit = of_checkout(CHECKOUT).number
    if STATE.exists() and not options.anew:
        state: dict[str, Any] = json.loads(STATE.read_text())
        if state["commit"] == commit:
            for name in options.rows:
                state["rows"].pop(name, None)
            return state
    return {"commit": commit, "rows": {}}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/crash-matrix", description="Runs the crash matrix and prints its table.")
    parser.add_argument("rows", nargs="*", metavar="row", help="names of rows or of groups; default: all that are not done")
    parser.add_argument("--share", type=float, default=1.0, help="of the tries of each row, how many to make (1)")
    parser.add_argument("--minutes", type=float, default=40.0, help="begin no row after so long (40)")
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time (2)")
    parser.add_argument("--anew", action="store_true", help="forget what an interrupted run has done")
    parser.add_argument("--strict", action="store_true", help="fail also if something cannot be done on this machine")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document, between its marks")
    options = parser.parse_args()
    known = {row.name for row in ROWS} | {row.group for row in ROWS}
    if unknown := set(options.rows) - known:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in ROWS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
