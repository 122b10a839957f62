"""Measured figures: series of rounds, ratios between two of them, targets, and the Markdown that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


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
        """`median (least to greatest)`."""
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
        """The whole as Markdown."""
        parts = [f"### {self.title}", *self.tables]
        if self.targets:
            rows = [(target.what, target.wanted, target.found, "met" if target.met else "**missed**") for target in self.targets]
            parts.append(table(("target", "wanted", "found", ""), rows))
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; every column but the first is aligned to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
