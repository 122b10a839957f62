"""The row `rate`: latencies at half of the most that a server does, from the instant at which each request was due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.contestants import GATEWAY, WARM_SECONDS, YARDSTICK, check_count
from benchmarks.cores import load_cores, server_core
from benchmarks.figures import Result, Series, in_turn, table
from benchmarks.gateway_process import Gateway
from benchmarks.generator import Paced, compiled
from benchmarks.lines import body
from benchmarks.load import Load
from benchmarks.peers import yardstick
from benchmarks.reports import CHECKED
from benchmarks.settings import Settings

ROUNDS = 3
MOST_SECONDS = 2.0
SECONDS = 8.0
SHARE = 0.5
WANTED_P99_MS = 10.0


@dataclass(frozen=True, slots=True)
class Round:
    """The most that a server does, then the load at a share of it."""

    most: Load
    asked_per_s: float
    steady: Load


def run(settings: Settings) -> Result:
    """Measure the gateway and the yardstick, each at half of its own maximum."""
    generator = Paced(compiled(settings.directory), body(), load_cores(), settings.connections)
    seconds = settings.seconds(SECONDS)
    contestants: dict[str, Callable[[], Round]] = {
        GATEWAY: partial(_gateway, settings, generator, seconds),
        YARDSTICK: partial(_yardstick, generator, seconds),
    }
    rounds = in_turn(contestants, settings.rounds(ROUNDS))
    result = Result(f"rate: 1 KiB JSON at half of the maximum, {settings.connections} connections, the server on one core")
    head = ("", "most requests/s", "asked for", "answered", "p50 ms", "p99 ms", "p99.9 ms")
    result.tables.append(table(head, [_line(name, each) for name, each in rounds.items()]))
    p99 = Series(tuple(each.steady.p99_ms for each in rounds[GATEWAY]))
    result.at_most("half load on one core: p99 ms", WANTED_P99_MS, p99)
    result.notes.append(
        f"For {seconds:g} seconds a round requests were due at even intervals. A latency begins when the request was due, "
        "so that a stall counts against every request that it held up. The generator is the benchmark's own."
    )
    result.notes.append(CHECKED)
    return result


def _gateway(settings: Settings, generator: Paced, seconds: float) -> Round:
    with Gateway(settings.directory / "gateway", cores=server_core()) as gateway:
        loads = _most_then_steady(generator, gateway.url("/usage"), seconds)
        gateway.stop()
        check_count(gateway.delivered_lines(), sum(load.requests for load in loads), 0)
    return _round(loads)


def _yardstick(generator: Paced, seconds: float) -> Round:
    with yardstick(server_core()) as server:
        return _round(_most_then_steady(generator, server.url, seconds))


def _most_then_steady(generator: Paced, url: str, seconds: float) -> list[Load]:
    """All loads, the warming among them; the last two are what counts."""
    warm, most = generator.put(url, WARM_SECONDS), generator.put(url, min(seconds, MOST_SECONDS))
    return [warm, most, replace(generator, rate=most.per_s * SHARE).put(url, seconds)]


def _round(loads: Sequence[Load]) -> Round:
    most, steady = loads[-2:]
    return Round(most, most.per_s * SHARE, steady)


def _line(name: str, rounds: Sequence[Round]) -> tuple[str, ...]:
    return (
        name,
        Series(tuple(each.most.per_s for each in rounds)).show(),
        Series(tuple(each.asked_per_s for each in rounds)).show(),
        Series(tuple(each.steady.per_s for each in rounds)).show(),
        Series(tuple(each.steady.p50_ms for each in rounds)).show(1),
        Series(tuple(each.steady.p99_ms for each in rounds)).show(1),
        Series(tuple(each.steady.p999_ms for each in rounds)).show(1),
    )
