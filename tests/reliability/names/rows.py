"""Rows about names: many batches in an hour, gateways that cannot be told apart, clocks that step and hours that turn."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from reliability.names import clocks, keys, taken
from reliability.names.bench import MIDDLE, NamingBench, newest
from reliability.row import CannotRun, Outcome, Row, Site
from reliability.verdict import delivered
from testkit import stored
from testkit.deadlines import until

GROUP = "Names"
SMALL = b'{"number":%d}'
# With a file of its own, and a batch.
LARGE = b'{"number":%d,"text":"' + b"x" * 20_000 + b'"}'
# So many batches of them that there are several to each life of the gateway.
LEAST_LARGE = 12


def _many_batches(site: Site) -> Outcome:
    """Batches of one hour, some cut by the interval and some by size, over kills and stops, between a stranger's objects."""
    outcome = Outcome()
    for wanted, report in ((6, SMALL), (max(LEAST_LARGE, site.of(60)), LARGE)):
        (folder := site.folder / str(wanted)).mkdir()
        bench = NamingBench(replace(site, folder=folder), now=MIDDLE)
        bench.plant(MIDDLE, 1, 3, 4, 9, 40)
        with bench.running(outcome, f"{wanted} batches"):
            _one_after_the_other(bench, wanted, report)
        outcome.notes.append(f"{bench.sent()} batches in one hour")
    return outcome


def _one_after_the_other(bench: NamingBench, wanted: int, report: bytes) -> None:
    """Reports that are a batch each, but for those that a new start finds with one of its own."""
    life = wanted // 3
    for number in range(3 * wanted):
        bench.put(bench.gateway, "usage", report % number)
        if number < 3 * life and number % life == life - 1:
            # The last ones of a life are still on their way at its end.
            bench.gateway.kill() if number < life else bench.stop(bench.gateway)
            bench.gateway.start()
        elif number % life < life * 3 // 4:
            delivered(bench.gateway)
        if bench.sent() >= wanted:
            return
    raise AssertionError(f"{3 * wanted} reports have made only {bench.sent()} batches")


def _one_host(site: Site) -> Outcome:
    """Two gateways of one host name and one bucket, both under load; one of them is killed in between."""
    outcome = Outcome()
    bench = NamingBench(site, count=2, now=MIDDLE, max_batch_bytes="256KiB")
    bench.plant(MIDDLE, 2, 5)
    kills = site.of(6)
    with bench.running(outcome, "two of one name", tries=kills), ExitStack() as stack:
        for number, gateway in enumerate(bench.gateways):
            stack.enter_context(bench.load(gateway, first=100 * number).running())
        for number in range(1, kills + 1):
            until(lambda number=number: bench.sent() >= 8 * number, "batches of the two")  # type: ignore[misc]
            bench.gateways[number % 2].kill()
            bench.gateways[number % 2].start()
    outcome.notes.append(f"{bench.sent()} batches of the two in one hour")
    return outcome


def _one_tick(site: Site) -> Outcome:
    """Two gateways, each with the process id 1 and a clock that stands at the same instant, are sent files of one name."""
    outcome = Outcome()
    own_user = () if os.geteuid() == 0 else ("--map-root-user",)
    # In full: the gateway's environment has no PATH to speak of.
    unshare = shutil.which("unshare")
    if unshare is None:
        raise CannotRun("there is no unshare (Debian: util-linux)")
    prefix = (unshare, "--pid", "--fork", "--kill-child", *own_user, "--")
    _can_be_run([*prefix, "true"])
    bench = NamingBench(site, count=2, now=MIDDLE, stands=True, prefix=prefix)
    instant = int(MIDDLE.timestamp()) * 10**9
    bench.plant(MIDDLE, 1, 3)
    for number in range(0, 60, 7):
        bench.buckets.plant(bench.buckets.specimen, f"alice/{MIDDLE:%Y/%m/%d}/same.{instant + number}.bin")
    lives = max(3, site.of(8))
    with bench.running(outcome, "one process id and one instant", tries=lives):
        for number, gateway in enumerate(bench.gateways):
            # Up to here the two have done the very same, so that what names their batches is the same but for chance.
            bench.put(gateway, "usage", b'{"first":%d}' % number)
            delivered(gateway)
        for life in range(lives):
            _live(bench, life, outcome)
            if life < lives - 1:
                _end(bench, life)
    numbered = sum(keys.has_number(key) for key in stored.keys(bench.buckets, bench.buckets.specimen))
    outcome.notes.append(f"{numbered} files found their name taken")
    if not numbered:
        outcome.blame("no two files had one name")
    return outcome


def _live(bench: NamingBench, life: int, outcome: Outcome) -> None:
    for number, gateway in enumerate(bench.gateways):
        if gateway.events("gateway starting")[0]["pid"] != 1:
            outcome.blame("the process id is another one")
        for one in range(10):
            bench.put(gateway, "specimen", f"life {life}, gateway {number}, file {one}".encode())
            bench.put(gateway, "usage", b'{"life":%d,"gateway":%d,"report":%d}' % (life, number, one))
    bench.proxy.accept()


def _end(bench: NamingBench, life: int) -> None:
    """Kill both with something in the spool, which is there yet when the next ones give names, or have them drain."""
    if life % 2:
        for gateway in bench.gateways:
            # Nothing is left that says which names were given, and the clock has not moved.
            bench.stop(gateway)
            gateway.start()
        return
    bench.proxy.refuse()
    for number, gateway in enumerate(bench.gateways):
        bench.put(gateway, "specimen", f"left by life {life}, gateway {number}".encode())
        gateway.kill()
        waiting = newest(gateway.cache)
        gateway.start()
        bench.put_above(gateway, waiting)


def _can_be_run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise CannotRun(f"no process can be put into a namespace: {done.stderr.strip()}")


ROWS: tuple[Row, ...] = (
    Row("names-hour", GROUP, "six and sixty batches in one hour, among a stranger's objects", _many_batches),
    Row("names-host", GROUP, "two gateways with one host name and one bucket, under load and killed in turn", _one_host),
    Row("names-tick", GROUP, "two gateways with one process id and one clock tick, started anew", _one_tick),
    *taken.ROWS,
    *clocks.ROWS,
)
