"""The rows `reports` and `large-reports`: reports acknowledged after sync on one core, against peers on the same core."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.contestants import GATEWAY, NGINX, YARDSTICK, Setup, load_gateway, load_nginx, load_peer, load_yardstick
from benchmarks.cores import Cores, load_cores, server_core
from benchmarks.figures import Result, Series, in_turn, table
from benchmarks.lines import KIB, body
from benchmarks.load import Load
from benchmarks.settings import Settings
from benchmarks.wrk import Wrk

ROUNDS = 5
LARGE_ROUNDS = 3
SECONDS = 3.0
LARGE_BYTES = 64 * KIB
WANTED_RATIO = 1.7

CHECKED = "After each round of the gateway the lines in its objects were counted: every acknowledged report is there, once."
WRK = "The load generator is wrk, which sends head and body in one write."


def run(settings: Settings) -> Result:
    """Reports of 1 KiB."""
    loads = in_turn(_contestants(settings, body()), settings.rounds(ROUNDS))
    result = Result(f"reports: 1 KiB JSON, {settings.connections} connections, the server on one core")
    result.tables.append(compare(loads, GATEWAY))
    result.at_least("one core: gateway / the aiohttp yardstick, requests/s", WANTED_RATIO, rates(loads, GATEWAY, YARDSTICK))
    result.notes.append(
        "The yardstick stands for a peer that cannot be had here: the same target is 36,000 requests/s on a machine where "
        "Fluent Bit makes 24,000."
    )
    result.notes.extend((CHECKED, WRK))
    return result


def run_large(settings: Settings) -> Result:
    """Reports of 64 KiB."""
    report = body(LARGE_BYTES)
    loads = in_turn(_contestants(settings, report), settings.rounds(LARGE_ROUNDS))
    result = Result(f"large-reports: 64 KiB JSON, {settings.connections} connections, the server on one core")
    result.tables.append(compare(loads, GATEWAY, LARGE_BYTES))
    result.notes.extend((CHECKED, WRK))
    return result


def _contestants(settings: Settings, report: bytes) -> dict[str, Callable[[], Load]]:
    setup = Setup(settings.directory, settings.seconds(SECONDS), server_core())
    same, other = (wrk(settings, report, load_cores(), other_names=each) for each in (False, True))
    return {
        GATEWAY: partial(load_gateway, setup, same),
        NGINX: partial(load_nginx, setup, other),
        YARDSTICK: partial(load_yardstick, setup, same),
        **peers(settings, report, load_cores()),
    }


def wrk(settings: Settings, report: bytes, cores: Cores, *, other_names: bool = False, method: str = "PUT") -> Wrk:
    """The load generator wrk for a report."""
    return Wrk(report, cores, settings.connections, settings.directory, method, other_names=other_names)


def peers(settings: Settings, report: bytes, cores: Cores) -> dict[str, Callable[[], Load]]:
    """The peers that were named on the command line, as contestants."""
    generator = wrk(settings, report, cores, method="POST")
    return {peer.name: partial(load_peer, peer, generator, settings.seconds(SECONDS)) for peer in settings.peers}


def rates(loads: Mapping[str, list[Load]], name: str, other: str) -> Series:
    """Requests a second of one contestant by those of another, round by round."""
    mine, theirs = (Series(tuple(load.per_s for load in loads[each])) for each in (name, other))
    return mine.over(theirs)


def compare(loads: Mapping[str, list[Load]], base: str, report_bytes: int | None = None) -> str:
    """A table of contestants, and how much more `base` does; with MB/s where the size of a report is given."""
    rows = []
    for name, each in loads.items():
        per_s = Series(tuple(load.per_s for load in each))
        cpu = tuple(load.cpu_us for load in each if load.cpu_us is not None)
        rows.append(
            (
                name,
                per_s.show(),
                *(() if report_bytes is None else (Series(tuple(rate * report_bytes / 1e6 for rate in per_s.values)).show(),)),
                Series(tuple(load.p50_ms for load in each)).show(1),
                Series(tuple(load.p99_ms for load in each)).show(1),
                Series(cpu).show() if cpu else "",
                "" if name == base else rates(loads, base, name).show(2),
            )
        )
    size = () if report_bytes is None else ("MB/s",)
    return table(("", "requests/s", *size, "p50 ms", "p99 ms", "CPU µs each", f"{base.partition(' (')[0]} / this"), rows)
