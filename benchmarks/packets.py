"""The row `packets`: small reports whose head and body come together, or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from benchmarks.contestants import Setup, load_gateway, load_yardstick
from benchmarks.cores import load_cores, server_core
from benchmarks.figures import Result, in_turn
from benchmarks.generator import ONE_WRITE, Paced, compiled
from benchmarks.lines import body
from benchmarks.load import Load
from benchmarks.reports import CHECKED, compare
from benchmarks.settings import Settings

ROUNDS = 3
SECONDS = 2.0
# Longer than a server that keeps up takes to read what is there, so that it meets the head alone.
APART_US = 200
WAYS = {"one write": ONE_WRITE, "two writes at once": 0, f"two writes, {APART_US} µs apart": APART_US}
BASE = "gateway, one write"


def run(settings: Settings) -> Result:
    """Measure each way, of the gateway and of the yardstick."""
    setup = Setup(settings.directory, settings.seconds(SECONDS), server_core())
    plain = Paced(compiled(settings.directory), body(), load_cores(), settings.connections)
    contestants: dict[str, Callable[[], Load]] = {}
    for name, load in (("gateway", load_gateway), ("yardstick", load_yardstick)):
        for way, gap_us in WAYS.items():
            contestants[f"{name}, {way}"] = partial(load, setup, replace(plain, gap_us=gap_us))
    loads = in_turn(contestants, settings.rounds(ROUNDS))
    result = Result(f"packets: 1 KiB JSON, {settings.connections} connections, the server on one core")
    result.tables.append(compare(loads, BASE))
    result.notes.append(
        "All of them were loaded by the benchmark's own generator: these figures compare with each other, and not with wrk's."
    )
    result.notes.append("Of two writes at once a busy server may find both when it looks; of two that are apart it may not.")
    result.notes.append(CHECKED)
    return result
