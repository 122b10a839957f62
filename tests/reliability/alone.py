"""Runs one row in a process of its own, with a MinIO of its own; what came of it is printed as JSON.

So no row can leave anything to the next one: a limit, a signal, a traced process, a bucket.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from reliability.row import CannotRun, Outcome, Row, Site
from reliability.rows import ROWS
from testkit.servers.minio import MinioProcess, binary
from testkit.servers.source import cache_folder


def run_alone(row: Row, folder: Path, share: float) -> dict[str, Any]:
    """Run a row in a process of its own; its folder is removed if it has held."""
    command = [sys.executable, "-m", "reliability.alone", row.name, str(folder), str(share)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return {**Outcome(faults=[f"its process exited {done.returncode}"]).as_json(), "seconds": 0.0, "share": share}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def say(text: str) -> None:
    """Tell whoever waits."""
    print(text, file=sys.stderr, flush=True)


def _run(row: Row, folder: Path, share: float) -> dict[str, Any]:
    say(f"{row.name}: {row.fault}")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "row").mkdir(parents=True)
    minio = MinioProcess(binary(cache=cache_folder(), say=say), folder / "minio")
    minio.start()
    begun = time.monotonic()
    try:
        outcome = row.run(Site(folder / "row", minio, share))
    except CannotRun as reason:
        say(f"{row.name}: cannot be done here: {reason}")
        return {"cannot": str(reason)}
    except Exception as error:  # noqa: BLE001 (a row that breaks has not held, and the others go on)
        traceback.print_exc()
        outcome = Outcome(faults=[f"the row itself broke: {error!r}"])
    finally:
        minio.stop()
        shutil.rmtree(folder / "minio", ignore_errors=True)
    seconds = time.monotonic() - begun
    if not outcome.faults:
        shutil.rmtree(folder)
    for fault in outcome.faults[:10]:
        say(f"{row.name}: FAULT {fault}")
    for note in outcome.notes[:10]:
        say(f"{row.name}: {note}")
    say(f"{row.name}: {outcome.tried} tried, {outcome.lost} lost, {outcome.doubled} doubled, {seconds:.0f} s")
    return {**outcome.as_json(), "seconds": seconds, "share": share}


if __name__ == "__main__":
    name, where, of_tries = sys.argv[1:]
    print(json.dumps(_run(next(row for row in ROWS if row.name == name), Path(where), float(of_tries))))
