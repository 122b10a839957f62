"""Rows in which processes of a gateway with workers are killed: one of them, the one that delivers, or all."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from reliability.row import Outcome, Row, Site
from reliability.workers import calls, small_disk
from reliability.workers.bench import GROUP, TRIES_A_LIFE, Bench
from testkit.deadlines import until
from testkit.worker_log import gone, kill_first, workers

ONE, FIRST, ALL = 60, 30, 30
# One death in so many comes before the process has even begun to receive.
_EARLY = 4


def _one(site: Site) -> Outcome:
    """Workers die at any moment, at times both, at times before they receive; each is told, and the others go on."""
    outcome = Outcome()
    bench = Bench(site, outcome)
    deaths: set[int] = set()
    with bench.under_load():
        for number in range(site.of(ONE)):
            if number and number % TRIES_A_LIFE == 0:
                _looked_after(bench, deaths)
                bench.restart(f"before death {number}")
                deaths.clear()
            if number % _EARLY:
                bench.until_whole()
            bench.moment()
            pid = bench.random.choice(until(bench.processes, "a worker"))
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                deaths.add(pid)
                outcome.tried += 1
            gone([pid])
        _looked_after(bench, deaths)
        bench.moment()
        # The stop that follows finds one in the middle of its replacement.
        os.kill(until(bench.processes, "a worker")[0], signal.SIGKILL)
        bench.moment(0.2)
    return outcome


def _looked_after(bench: Bench, deaths: set[int]) -> None:
    """Return once each of these deaths was told, and what it left was put in order; blame any other."""
    gateway = bench.gateway

    def pids(event: str) -> set[int]:
        return {line["pid"] for line in gateway.events(event)}

    until(lambda: deaths <= pids("worker died") & pids("worker recovered"), "the dead to be looked after")
    bench.until_whole()
    if strangers := pids("worker died") - deaths:
        bench.outcome.blame(f"processes died by themselves: {sorted(strangers)}")


def _first(site: Site) -> Outcome:
    """The process that delivers dies: its workers go by themselves, and the next start takes over, at times one of two."""
    outcome = Outcome()
    bench = Bench(site, outcome)
    with bench.under_load():
        for number in range(site.of(FIRST)):
            bench.moment()
            if number % _EARLY == 0:
                # So that at times a worker has only just been started, and at times is being looked after.
                os.kill(next(iter(workers(bench.gateway).values())), signal.SIGKILL)
                bench.moment()
            left = bench.processes()
            kill_first(bench.gateway)
            outcome.tried += 1
            # At once: it has to wait for the workers by itself.
            bench.gateway.start()
            gone(left)
    return outcome


def _all(site: Site) -> Outcome:
    """All processes die at the same moment, at times in the middle of the next start."""
    outcome = Outcome()
    bench = Bench(site, outcome, count=3)
    with bench.under_load():
        for number in range(site.of(ALL)):
            bench.moment()
            if number % _EARLY == 0:
                bench.gateway.kill()
                bench.gateway.launch()
                until(lambda: bench.gateway.events("gateway starting"), "the next start to begin")
                bench.moment(0.8)
            left = bench.processes()
            bench.gateway.kill()
            outcome.tried += 1
            bench.gateway.start()
            gone(left)
    return outcome


ROWS: tuple[Row, ...] = (
    Row("workers-kill-one", GROUP, "SIGKILL of one of two workers at random moments under load", _one),
    Row("workers-kill-first", GROUP, "SIGKILL of the process that delivers, under load", _first),
    Row("workers-kill-all", GROUP, "SIGKILL of all processes at once, under load and in the start that follows", _all),
    *calls.ROWS,
    *small_disk.ROWS,
)
