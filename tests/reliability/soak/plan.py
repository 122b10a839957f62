"""What happens to the gateway in a soak, step by step: kills, stops, outages and quiet points, by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum


class Deed(Enum):
    """What a step does."""

    KILL = "SIGKILL"
    KILL_IN_RECOVERY = "SIGKILL, and SIGKILL again in the start that follows"
    STOP = "SIGTERM"
    OUTAGE = "an outage begins"
    RECOVERY = "the outage ends"
    QUIET = "a quiet point"


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        after_s: how long after the end of the step before it.
        outage: which one begins.
    """

    after_s: float
    deed: Deed
    outage: str = ""


@dataclass(frozen=True)
class Pace:
    """How fast a soak goes: a short one has to do in two minutes what a long one takes half an hour for.

    Attributes:
        killing_s: how long there are kills and outages, before the calm phase and once more after it.
        calm_s: how long there are outages alone.
        interval_s: how long the gateway gathers reports; also about how long it takes to come to a quiet point.
        outage_s: the shortest and the longest outage.
        pause_s: the shortest and the longest time between two steps.
        heavy_s: how long after one large body comes the next.
    """

    killing_s: float
    calm_s: float
    interval_s: float
    outage_s: tuple[float, float]
    pause_s: tuple[float, float]
    heavy_s: float


def pace_of(minutes: float) -> Pace:
    """The pace of a soak that takes about so many minutes."""
    return Pace(
        killing_s=minutes * 15,
        calm_s=minutes * 30,
        # Not too many batches in an hour: after each kill their numbers are looked for one by one.
        interval_s=_within(minutes / 6, 1.0, 5.0),
        outage_s=(1.0, _within(minutes, 1.5, 10.0)),
        pause_s=(0.3, _within(minutes / 2, 0.8, 8.0)),
        heavy_s=_within(minutes / 5, 0.7, 4.0),
    )


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


_KILLS = (Deed.KILL, Deed.KILL, Deed.KILL_IN_RECOVERY, Deed.STOP)


def killing(source: random.Random, pace: Pace, outages: Sequence[str]) -> Iterator[Step]:
    """Lives without end, each ended by force or by a signal: in peace, while the store is away, or after it was."""

    def pause() -> float:
        return source.uniform(*pace.pause_s)

    kinds = _shuffled(source, outages)
    while True:
        when = source.choice(("in peace", "in an outage", "after an outage"))
        if when == "in peace" and source.random() < 0.5:
            yield Step(pause(), Deed.QUIET)
        if when != "in peace":
            yield Step(pause(), Deed.OUTAGE, next(kinds))
        if when == "after an outage":
            yield Step(source.uniform(*pace.outage_s), Deed.RECOVERY)
        yield Step(pause(), source.choice(_KILLS))
        if when == "in an outage":
            yield Step(pause(), Deed.RECOVERY)


def calm(source: random.Random, pace: Pace, outages: Sequence[str]) -> Iterator[Step]:
    """Outages of every kind without end, and a quiet point after each."""
    for kind in _shuffled(source, outages):
        yield Step(source.uniform(*pace.pause_s), Deed.OUTAGE, kind)
        yield Step(source.uniform(*pace.outage_s), Deed.RECOVERY)
        yield Step(source.uniform(*pace.pause_s), Deed.QUIET)


def _shuffled(source: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    """Each of them once in a random order, and again in another."""
    while True:
        yield from source.sample(kinds, len(kinds))
