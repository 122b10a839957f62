"""What was found out about a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SUPPORTED, REQUIRED = "when_supported", "when_required"
CHECKSUMS = (SUPPORTED, REQUIRED)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried.

    Attributes:
        name: by which `verdict` knows it.
        what: was tried, as a reader of the table sees it.
        holds: whether the store did what S3 does.
        detail: what it did.
    """

    name: str
    what: str
    holds: bool
    detail: str


def table(findings: Sequence[Finding]) -> str:
    """All findings as a table that can be read as it is, and is Markdown as well."""
    rows = [("tried", "holds", "found"), *((each.what, "yes" if each.holds else "NO", each.detail) for each in findings)]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
