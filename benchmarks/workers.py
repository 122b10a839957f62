"""The row `cores`: small reports with one receiving process and with as many as there are cores."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.contestants import NGINX, Setup, load_gateway, load_nginx, on_all_cores
from benchmarks.cores import every_core, load_cores, server_core
from benchmarks.figures import Result, in_turn
from benchmarks.gateway_process import Gateway, NotStarted
from benchmarks.lines import body
from benchmarks.load import Load
from benchmarks.reports import CHECKED, WRK, compare, peers, rates, wrk
from benchmarks.settings import CannotRun, Settings

ROUNDS = 3
SECONDS = 3.0
WANTED_RATIO = 1.0
WORKERS = "LIGHTFILE6_SERVER_WORKERS"
PINNED = "gateway, one process, on one core"
ONE = "gateway, one process"
AUTO = "gateway, a worker for each core"


def run(settings: Settings) -> Result:
    """Measure both on all cores, and one process on one core beside them."""
    _require_workers(settings)
    one_core = Setup(settings.directory, settings.seconds(SECONDS), server_core())
    all_cores = on_all_cores(one_core)
    beside, among, among_names = (
        wrk(settings, body(), load_cores()),
        wrk(settings, body(), every_core()),
        wrk(settings, body(), every_core(), other_names=True),
    )
    contestants: dict[str, Callable[[], Load]] = {
        PINNED: partial(load_gateway, one_core, beside, {WORKERS: "1"}),
        ONE: partial(load_gateway, all_cores, among, {WORKERS: "1"}),
        AUTO: partial(load_gateway, all_cores, among, {WORKERS: "auto"}),
        NGINX: partial(load_nginx, all_cores, among_names),
        **peers(settings, body(), every_core()),
    }
    loads = in_turn(contestants, settings.rounds(ROUNDS))
    result = Result(f"cores: 1 KiB JSON, {settings.connections} connections, on all {len(every_core())} cores")
    result.tables.append(compare(loads, AUTO))
    result.at_least("all cores / one core, gateway, requests/s", WANTED_RATIO, rates(loads, AUTO, PINNED))
    result.notes.append("On all cores the load generator shares them with what it loads; nginx has a worker for each.")
    result.notes.extend((CHECKED, WRK))
    return result


def _require_workers(settings: Settings) -> None:
    """`CannotRun` if the gateway that is measured has no such setting; it refuses to start with one that it does not know."""
    try:
        with Gateway(settings.directory / "gateway", {WORKERS: "1"}):
            pass
    except NotStarted as error:
        if WORKERS in str(error) or "server.workers" in str(error):
            raise CannotRun("this gateway has no setting server.workers") from error
        raise
