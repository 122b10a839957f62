"""What a run has found, as one text in Markdown: the machine, the targets, then row by row."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import table
from benchmarks.rows import Outcome

MET = "met"
SHORT = "**falls short**"
NOT_MEASURED = "**not measured**"


def render(machine: Sequence[str], outcomes: Sequence[Outcome]) -> str:
    """The whole text; a row that could not be run stands in it with its reason."""
    parts = ["\n".join(f"- {line}" for line in machine), targets(outcomes), *map(_section, outcomes)]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def targets(outcomes: Sequence[Outcome]) -> str:
    """The table of all targets, those that were missed or not measured among them."""
    lines: list[tuple[str, ...]] = []
    for outcome in outcomes:
        if outcome.result is None:
            lines.append((f"row `{outcome.name}`", "", "", NOT_MEASURED))
            continue
        lines.extend((each.what, each.wanted, each.found, MET if each.met else SHORT) for each in outcome.result.targets)
    return table(("target", "wanted", "found", ""), lines) if lines else ""


def _section(outcome: Outcome) -> str:
    if outcome.result is not None:
        return outcome.result.render()
    indented = "\n".join(f"    {line}".rstrip() for line in outcome.fault.strip().splitlines())
    return f"### {outcome.name}: not measured\n\n{indented}"


def summary(outcome: Outcome) -> str:
    """One line for who is waiting."""
    if outcome.result is None:
        return f"{outcome.name}: not measured after {outcome.seconds:.0f} s: {outcome.fault.strip().splitlines()[-1]}"
    met = sum(target.met for target in outcome.result.targets)
    return f"{outcome.name}: {outcome.seconds:.0f} s, {met} of {len(outcome.result.targets)} targets met"
