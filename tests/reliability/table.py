"""The table of the crash matrix, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from reliability.row import Row

HEAD = ("fault", "tried", "acknowledged", "delivered", "lost", "doubled")


def render(rows: Sequence[Row], state: Mapping[str, Any]) -> str:
    """All rows that there are, group by group, those that were not run or cannot be run here among them."""
    parts = [f"Commit {state['commit']}."]
    for group, members in groupby(rows, key=lambda row: row.group):
        parts.append(f"### {group}\n\n" + _table([_line(row, state["rows"].get(row.name)) for row in members]))
    return "\n\n".join(parts) + "\n"


def _line(row: Row, result: Mapping[str, Any] | None) -> list[str]:
    name = f"`{row.name}`: {row.fault}"
    if result is None:
        return [name, "not run", "", "", "", ""]
    if "cannot" in result:
        return [f"{name} ({result['cannot']})", "cannot be produced here", "", "", "", ""]
    figures = [f"{result[column]:,}" for column in HEAD[1:]]
    if result["faults"]:
        figures[-1] += " **did not hold**"
    return [name, *figures]


def _table(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *lines))
