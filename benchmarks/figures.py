"""Measured figures: series of rounds, ratios between two of them, targets, and the Markdown that shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series:
    """What the rounds of one contestant came to, in the order of the rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    def over(self, other: Series) -> Series:
        """Divide round by round: two figures of one round met the same state of the machine."""
        return Series(tuple(mine / theirs for mine, theirs in zip(self.values, other.values, strict=True)))

    def show(self, digits: int = 0) -> str:
        """`median (least to greatest)`; the median alone where there was one round."""
        shown = f"{self.median:,.{digits}f}"
        if len(self.values) == 1:
            return shown
        return f"{shown} ({min(self.values):,.{digits}f} to {max(self.values):,.{digits}f})"


@dataclass(frozen=True, slots=True)
class Target:
    """A figure to reach."""

    what: str
    wanted: str
    found: str
    met: bool


@dataclass(slots=True)
class Result:
    """What one row has to say."""

    title: str
    tables: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def at_least(self, what: str, wanted: float, found: Series, digits: int = 2) -> None:
        """Note a target that the median has to reach."""
        self.targets.append(Target(what, f"≥ {wanted:,g}", found.show(digits), met=found.median >= wanted))

    def at_most(self, what: str, wanted: float, found: Series, digits: int = 1) -> None:
        """Note a bound that no round may pass."""
        self.targets.append(Target(what, f"≤ {wanted:,g}", found.show(digits), met=max(found.values) <= wanted))

    def render(self) -> str:
        """The tables and notes as Markdown; the targets of all rows stand in one table of their own."""
        parts = [f"### {self.title}", *self.tables]
        if self.notes:
            # A sentence a line, as in the rest of the page that they are written to.
            sentences = [sentence for note in self.notes for sentence in re.split(r"(?<=[a-z0-9`)][.?!]) (?=[A-Z`(])", note)]
            parts.append("\n".join(f"- {sentence}" for sentence in sentences))
        return "\n\n".join(parts) + "\n"


def in_turn(contestants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Measure each contestant once a round; another one begins each round, since a machine may be kinder to the first."""
    found: dict[str, list[T]] = {name: [] for name in contestants}
    names = list(contestants)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(contestants[name]())
    return found


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The least of the ordered values that `percent` per cent of them do not pass; `ValueError` if there are none."""
    if not ordered:
        raise ValueError("there is no percentile of nothing")
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; every column but the first is aligned to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
