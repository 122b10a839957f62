"""The table of the crash matrix, as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from reliability.row import Row

HEAD = ("fault", "tried", "acknowledged", "delivered", "lost", "doubled")


def render(rows: Sequence[Row], state: Mapping[str, Any]) -> str:
    """All rows that there are, group by group, those that were not run or cannot be run here among them."""
    parts = [f"Commit {state['commit']}."]
    for group, members in groupby(rows, key=lambda row: row.group):
        parts.append(f"### {group}\n\n" + table_of(HEAD, [_line(row, state["rows"].get(row.name)) for row in members]))
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


def table_of(head: Sequence[str], lines: Iterable[Sequence[str]], *, texts: Collection[int] = (0,)) -> str:
    """A table in Markdown; what is in the columns of `texts` stands to the left, and everything else to the right."""
    rule = ["---" if column in texts else "---:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def put_between(document: Path, name: str, text: str) -> None:
    """Put a text into a document, between `<!-- NAME begins -->` and `<!-- NAME ends -->`."""
    begin, end = f"<!-- {name} begins -->\n", f"<!-- {name} ends -->"
    before, found, rest = document.read_text().partition(begin)
    _, found_too, after = rest.partition(end)
    if not (found and found_too):
        raise ValueError(f"{document} has no {begin.strip()} with an end")
    document.write_text(f"{before}{begin}\n{text.rstrip()}\n\n{end}{after}")
