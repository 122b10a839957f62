"""The rows `end-to-end` and `specimens`: from the first request to the last object in a MinIO."""

from __future__ import annotations

import random
import string
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.cores import every_core
from benchmarks.figures import Result, Series, table
from benchmarks.gateway_process import Gateway
from benchmarks.lines import KIB, SEED, body
from benchmarks.settings import Settings, Wrong
from benchmarks.store import Store, running
from benchmarks.wrk import Wrk

ROUNDS = 3
SECONDS = 4.0
SPECIMEN_SECONDS = 2.0
SPECIMEN_BYTES = 10 * KIB
SPECIMEN_PATH = "/specimen?uri=https%3A%2F%2Fexample.com%2Fsmall.bin"


@dataclass(frozen=True, slots=True)
class Way:
    """What is sent where, for how long, and how it is counted in the store below a prefix."""

    path: str
    wrk: Wrk
    seconds: float
    count: Callable[[Store, str], int]


def run(settings: Settings) -> Result:
    """Small reports."""
    report = body()
    wrk = Wrk(report, every_core(), settings.connections, settings.directory)

    def count(store: Store, prefix: str) -> int:
        return store.count_lines(prefix, report + b"\n")

    result = _measure(settings, Way("/usage", wrk, settings.seconds(SECONDS), count), "end-to-end: 1 KiB reports", "reports/s")
    result.notes.append(
        "Every object was fetched and unpacked: it holds as many of the lines that were sent as it says, with the hash that it "
        "says, and all together are the acknowledged ones."
    )
    return result


def run_specimens(settings: Settings) -> Result:
    """Small files."""
    content = "".join(random.Random(SEED).choices(string.ascii_letters + string.digits, k=SPECIMEN_BYTES)).encode("ascii")
    wrk = Wrk(content, every_core(), settings.connections, settings.directory, content_type="application/octet-stream")

    def count(store: Store, prefix: str) -> int:
        return store.count_files(prefix, content)

    way = Way(SPECIMEN_PATH, wrk, settings.seconds(SPECIMEN_SECONDS), count)
    result = _measure(settings, way, "specimens: files of 10 KiB", "specimens/s")
    result.notes.append(
        "Every specimen is an object of its own, whose MD5 in MinIO is that of what was sent, and there are as many as were "
        "acknowledged."
    )
    return result


def _measure(settings: Settings, way: Way, title: str, unit: str) -> Result:
    """Load the gateway, have it drain into MinIO, and count what arrived, round by round."""
    with running(settings) as store:
        rounds = [_round(settings, way, store, f"round-{number}/") for number in range(settings.rounds(ROUNDS))]
    received, delivered = (Series(tuple(each)) for each in zip(*rounds, strict=True))
    result = Result(f"{title} into a MinIO on the same machine, {settings.connections} connections")
    rows = [
        ("received, synced", received.show(), ""),
        ("from the first request to the last object in MinIO", delivered.show(), delivered.over(received).show(2)),
    ]
    result.tables.append(table(("", unit, "of what was received"), rows))
    result.notes.append("Gateway, MinIO and load generator share all cores and the disk.")
    return result


def _round(settings: Settings, way: Way, store: Store, prefix: str) -> tuple[float, float]:
    """How many are received a second, and how many with the drain counted in."""
    prefixes = {f"LIGHTFILE6_S3_{stream}_PREFIX": prefix for stream in ("USAGE", "SPECIMEN")}
    with Gateway(settings.directory / "gateway", {**store.variables, **prefixes}, local=False) as gateway:
        begun = time.perf_counter()
        load = way.wrk.put(gateway.url(way.path), way.seconds)
        gateway.stop()
        seconds = time.perf_counter() - begun
    if not load.requests:
        raise Wrong(f"not one request was answered within {way.seconds:g} seconds")
    found = way.count(store, prefix)
    if not load.requests <= found <= load.requests + load.in_flight:
        raise Wrong(f"{load.requests} were acknowledged, {load.in_flight} more may have come in, and {found} are in MinIO")
    return load.per_s, found / seconds
