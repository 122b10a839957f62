"""Rows about the clock: it steps back and forth, and hours, days and years turn."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from reliability.names.bench import HOUR, MIDDLE, NamingBench, newest
from reliability.row import Outcome, Row, Site
from reliability.verdict import delivered
from testkit import stored
from testkit.deadlines import until

GROUP = "Names"


def _steps(site: Site) -> Outcome:
    """The clock is set back and forth under load, back while the gateway is dead and its spool full, and while nothing is left.

    Whatever is sent is to be dated by the clock of that moment, and named above all that was there before.
    """
    outcome = Outcome()
    for name, step in site.pick([("hour", HOUR), ("day", 24 * HOUR), ("minute", HOUR / 60)]):
        (folder := site.folder / str(name)).mkdir()
        bench = NamingBench(replace(site, folder=folder))
        bench.clock.show(MIDDLE)
        for hours in range(-1, 4):
            bench.plant(MIDDLE - hours * HOUR, 1, 4)
        where = f"set back by one {name}"
        hour = ""
        with bench.running(outcome, where, tries=4):
            _in_life_and_death(bench, step)
            hour = _after_a_drain(bench, step)
            _refused_for_it(bench)
        if not bench.buckets.keys(bench.buckets.usage, hour):
            outcome.blame(f"{where}: nothing is dated by the clock, in {hour}")
    return outcome


def _in_life_and_death(bench: NamingBench, step: timedelta) -> None:
    with bench.load(first=0).running():
        bench.acknowledged(60)
        bench.clock.show(bench.clock.now() - step)
        bench.put_dated()
        bench.acknowledged(60)
        bench.clock.show(bench.clock.now() + 2 * step)
        bench.put_dated()
        bench.acknowledged(60)
        bench.clock.show(bench.clock.now() - step)
        bench.put_dated()
        bench.acknowledged(40)
    # By the interval, which is none of that clock's.
    delivered(bench.gateway)
    # From the first of these reports on all stay in the spool, whose newest name is above the clock of the next start.
    bench.proxy.refuse()
    with bench.load(first=100).running():
        bench.acknowledged(40)
        bench.gateway.kill()
        waiting = newest(bench.gateway.cache)
        bench.clock.show(bench.clock.now() - step)
        bench.gateway.start()
        bench.put_above(bench.gateway, waiting)
        bench.put_dated()
        bench.acknowledged(40)
    bench.proxy.accept()
    delivered(bench.gateway)


def _after_a_drain(bench: NamingBench, step: timedelta) -> str:
    """Return the hour that the clock shows, since nothing tells the gateway that it has shown a later one."""
    bench.stop(bench.gateway)
    bench.clock.show(bench.clock.now() - step)
    hour = f"{bench.clock.now():%Y/%m/%d/%H/}"
    bench.gateway.start()
    bench.put_dated()
    with bench.load(first=200).running():
        bench.acknowledged(40)
    delivered(bench.gateway)
    return hour


def _refused_for_it(bench: NamingBench) -> None:
    """The store sees the false time and refuses, until the clock is right again."""
    bench.proxy.clear()
    with bench.load(first=300).running():
        bench.acknowledged(40)
        until(lambda: bench.gateway.has_retried("refused", 1), "the store to refuse what is signed at another time")
        bench.clock.shift(timedelta())
        bench.acknowledged(40)
    delivered(bench.gateway, "what was refused for its time to be delivered")


def _instants(*texts: str) -> list[datetime]:
    return [datetime.fromisoformat(f"{text}:00+00:00") for text in texts]


TURNS = _instants(
    # What a machine without a battery shows at first.
    "1970-01-01T01:00",
    "2000-01-01T00:00",
    "2024-02-29T00:00",
    "2024-03-01T00:00",
    "2026-11-21T15:00",
    "2026-12-01T00:00",
    "2027-01-01T00:00",
    "2027-03-28T01:00",
    "2028-03-01T00:00",
    "2029-06-30T18:00",
    "2036-12-31T23:00",
    "2038-01-19T04:00",
    "2100-03-01T00:00",
)
# Of these the seventh is the turn of a year, and so of everything.
LEAST_SHARE = 0.25
_BEFORE = timedelta(seconds=0.7)


def _turns(site: Site) -> Outcome:
    """Under load the hour turns, and with it days, months and years; every third time the gateway is killed just then."""
    outcome = Outcome()
    bench = NamingBench(site)
    # So that a segment is open at each turn.
    bench.gateway.configure(spool={"segment_max_age": "1s", "segment_max_bytes": "64KiB"})
    turns = replace(site, share=max(site.share, LEAST_SHARE)).pick(TURNS)
    bench.clock.show(turns[0] - HOUR / 2)
    with bench.running(outcome, "turns", tries=len(turns)):
        with bench.load(first=0).running():
            for number, turn in enumerate(turns):
                bench.plant(turn, 1, 2, 4)
                bench.clock.show(turn - HOUR / 2)
                bench.acknowledged(12)
                bench.clock.show(turn - _BEFORE)
                until(lambda turn=turn: bench.put_dated() >= turn, f"it to be {turn}")  # type: ignore[misc]
                if number % 3 == 2:
                    bench.gateway.kill()
                    bench.gateway.start()
                bench.acknowledged(12)
        delivered(bench.gateway)
    hours = {key.rpartition("/")[0] for key in stored.keys(bench.buckets, bench.buckets.usage)}
    for hour in (hour for turn in turns for hour in (turn - HOUR, turn)):
        if f"{hour:%Y/%m/%d/%H}" not in hours:
            outcome.blame(f"nothing was delivered in {hour}")
    return outcome


ROWS: tuple[Row, ...] = (
    Row(
        "names-clock",
        GROUP,
        "the clock steps back and forth under load, back after a kill, after a drain, out of sight of the store",
        _steps,
    ),
    Row("names-turn", GROUP, "hour, day, month and year turn while reports come and batches are cut", _turns),
)
