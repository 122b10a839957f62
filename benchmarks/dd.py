"""What large bodies are measured against: `dd conv=fdatasync` of the same bytes to the same disk."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.settings import MIB, Wrong

TIMEOUT_S = 900.0
_SECONDS = re.compile(r"copied, ([0-9.]+(?:e-?[0-9]+)?) s")


def write(directory: Path, source: int, size: int, *, count: int, each: int) -> float:
    """Write the first `size` bytes of an open file `count` times at once, `each` times one after the other.

    Every file is synced by the `dd` that wrote it, as the gateway syncs every body.

    Returns:
        MiB/s, by dd's own word: the start of its process is not counted, since a gateway need not be started for a body.
    """
    directory.mkdir()

    def lane(number: int) -> float:
        return sum(_dd(directory / f"{number}.{turn}", source, size) for turn in range(each))

    with ThreadPoolExecutor(count) as executor:
        seconds = max(executor.map(lane, range(count)))
    return count * each * size / MIB / seconds


def _dd(target: Path, source: int, size: int) -> float:
    command = ["dd", f"if=/proc/self/fd/{source}", f"of={target}", "bs=1M", f"count={size // MIB}", "conv=fdatasync"]
    environment = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, pass_fds=(source,), timeout=TIMEOUT_S
    )
    return seconds_of(done.stderr)


def seconds_of(said: str) -> float:
    """How long it took, from what it said last; `Wrong` if that is not told."""
    found = _SECONDS.search(said)
    if found is None:
        raise Wrong(f"dd did not say how long it took:\n{said}")
    return float(found[1])
