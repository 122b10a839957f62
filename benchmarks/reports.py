"""The row `reports`: small reports acknowledged after sync, against a file per report, nginx and the yardstick."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.figures import Result, Series, table
from benchmarks.gateway_process import Gateway
from benchmarks.lines import body
from benchmarks.load import Load, other_names, put, require_wrk, same_name
from benchmarks.peers import nginx, require_nginx, yardstick
from benchmarks.settings import Settings, Wrong

ROUNDS = 3
SECONDS = 3.0
WARM_SECONDS = 1.0
WANTED_RATIO = 3.0
WANTED_PER_S = 12_000.0
# Where nginx is slower or faster than this the second target says nothing.
NGINX_RANGE = (3_000.0, 12_000.0)

GATEWAY = "gateway (synced)"
PER_FILE = "gateway, a file per report (synced)"
NGINX = "nginx WebDAV PUT (two workers, not synced)"
YARDSTICK = "aiohttp that only reads the body (keeps nothing)"


def run(settings: Settings) -> Result:
    """Measure all four in turn, and give their rates, latencies and ratios."""
    require_wrk()
    require_nginx()
    contestants: dict[str, Callable[[], Load]] = {
        GATEWAY: partial(_gateway, settings, {}),
        PER_FILE: partial(_gateway, settings, {"LIGHTFILE6_SPOOL_SEGMENT_REPORT_LIMIT": "0"}),
        NGINX: partial(_nginx, settings),
        YARDSTICK: partial(_yardstick, settings),
    }
    loads: dict[str, list[Load]] = {name: [] for name in contestants}
    for _ in range(settings.rounds or ROUNDS):
        for name, measure in contestants.items():
            loads[name].append(measure())
    return _result(settings, loads)


def _gateway(settings: Settings, variables: Mapping[str, str]) -> Load:
    with Gateway(settings.directory / "gateway", variables) as gateway:
        counted: list[int] = []
        for seconds in (WARM_SECONDS, settings.seconds or SECONDS):
            load = _put(settings, gateway.url("/usage"), same_name(body()), seconds)
            counted.append(load.requests)
        gateway.stop()
        _verify(gateway.delivered_lines(), sum(counted), len(counted) * settings.connections)
        return load


def _verify(found: int, answered: int, unanswered: int) -> None:
    """Every report that was acknowledged is in an object, once.

    wrk hangs up at its end with a request on each connection: those may be there as well.
    """
    if not answered <= found <= answered + unanswered:
        raise Wrong(f"{answered} reports were answered with 204 and {found} are in the objects")


def _nginx(settings: Settings) -> Load:
    directory = settings.directory / "nginx"
    with nginx(directory) as url:
        warm = _put(settings, url, other_names(body(), "warm"), WARM_SECONDS)
        load = _put(settings, url, other_names(body(), "run"), settings.seconds or SECONDS)
        files = sum(1 for _ in (directory / "files").iterdir())
        _verify(files, warm.requests + load.requests, 2 * settings.connections)
        return load


def _yardstick(settings: Settings) -> Load:
    with yardstick() as url:
        _put(settings, url, same_name(body()), WARM_SECONDS)
        return _put(settings, url, same_name(body()), settings.seconds or SECONDS)


def _put(settings: Settings, url: str, script: str, seconds: float) -> Load:
    return put(url, script, connections=settings.connections, seconds=seconds, scratch=settings.directory)


def _result(settings: Settings, loads: Mapping[str, list[Load]]) -> Result:
    rates = {name: Series(tuple(load.per_s for load in each)) for name, each in loads.items()}
    rows = [
        (
            name,
            rates[name].show(),
            Series(tuple(load.p50_ms for load in each)).show(1),
            Series(tuple(load.p99_ms for load in each)).show(1),
            rates[GATEWAY].over(rates[name]).show(2),
        )
        for name, each in loads.items()
    ]
    result = Result(f"reports: 1 KiB JSON, {settings.connections} connections, access log to a file")
    result.tables.append(table(("", "requests/s", "p50 ms", "p99 ms", "gateway is faster by"), rows))
    result.at_least("gateway / a file per report", WANTED_RATIO, rates[GATEWAY].over(rates[PER_FILE]))
    result.at_least("gateway, requests/s", WANTED_PER_S, rates[GATEWAY], 0)
    least, most = NGINX_RANGE
    if not least <= rates[NGINX].median <= most:
        result.notes.append(f"nginx is not between {least:,.0f} and {most:,.0f} here, for which the second target is meant.")
    result.notes.append(
        "After each round of the gateway the lines in its objects were counted: every acknowledged report is there."
    )
    return result
