"""The command line of the crash matrix: runs rows, keeps what came of them, prints the table."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import traceback
from typing import Any

from integration.minio import CHECKOUT, MinioProcess, binary, cache_folder

from gateway.version import of_checkout
from reliability.row import CannotRun, Outcome, Row, Site
from reliability.rows import ROWS
from reliability.table import render

# On the disk of the checkout, and not in /tmp, which may be no disk.
FOLDER = CHECKOUT / "build" / "crash-matrix"
STATE = FOLDER / "state.json"


def main() -> int:
    """Run the rows that were asked for and are not done; return 1 if any of the table has not held."""
    options = _parse()
    rows = [row for row in ROWS if not options.rows or row.name in options.rows or row.group in options.rows]
    state = _state(options)
    deadline = time.monotonic() + options.minutes * 60
    FOLDER.mkdir(parents=True, exist_ok=True)
    minio = MinioProcess(binary(cache=cache_folder(), say=_say), FOLDER / "minio")
    minio.start()
    try:
        for row in rows:
            if row.name in state["rows"]:
                continue
            if time.monotonic() > deadline:
                _say(f"the time is up before {row.name}: run the same command again to go on")
                break
            state["rows"][row.name] = _run(row, minio, options.share)
            STATE.write_text(json.dumps(state, indent=1))
    finally:
        minio.stop()
        shutil.rmtree(FOLDER / "minio", ignore_errors=True)
    print(render(ROWS, state))
    return int(any(result.get("faults") for result in state["rows"].values()))


def _run(row: Row, minio: MinioProcess, share: float) -> dict[str, Any]:
    _say(f"{row.name}: {row.fault}")
    folder = FOLDER / row.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    begun = time.monotonic()
    try:
        outcome = row.run(Site(folder, minio, share))
    except CannotRun as reason:
        _say(f"{row.name}: cannot be done here: {reason}")
        return {"cannot": str(reason)}
    except Exception as error:  # noqa: BLE001 (a row that breaks has not held, and the others go on)
        traceback.print_exc()
        outcome = Outcome(faults=[f"the row itself broke: {error!r}"])
    if not outcome.faults:
        shutil.rmtree(folder)
    seconds = time.monotonic() - begun
    for fault in outcome.faults[:10]:
        _say(f"{row.name}: FAULT {fault}")
    _say(f"{row.name}: {outcome.tried} tried, {outcome.lost} lost, {outcome.doubled} doubled, {seconds:.0f} s")
    return {**outcome.as_json(), "seconds": seconds, "share": share}


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
    parser.add_argument("--anew", action="store_true", help="forget what an interrupted run has done")
    options = parser.parse_args()
    known = {row.name for row in ROWS} | {row.group for row in ROWS}
    if unknown := set(options.rows) - known:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in ROWS)}")
    return options


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
