"""The table of the crash matrix, and how it comes into a document."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.row import Outcome, Row
from reliability.table import put_between, render

ROWS = tuple(Row(name, group, f"fault of {name}", lambda _: Outcome()) for name, group in (("a", "A"), ("b", "A"), ("c", "C")))


def test_every_row_has_a_line() -> None:
    """Also one that was not run, one that could not be, and one that did not hold."""
    held = Outcome(tried=1200, acknowledged=3, delivered=3)
    failed = Outcome(tried=1, acknowledged=1, lost=1, faults=["lost"])
    state = {"commit": "0.1.0", "rows": {"a": held.as_json(), "c": failed.as_json()}}
    text = render(ROWS, state)
    assert "Commit 0.1.0." in text
    assert "| `a`: fault of a | 1,200 | 3 | 3 | 0 | 0 |" in text
    assert "| `b`: fault of b | not run |" in text
    assert "| `c`: fault of c | 1 | 1 | 0 | 1 | 0 **did not hold** |" in text
    state["rows"] = {"a": {"cannot": "no strace"}}
    assert "| `a`: fault of a (no strace) | cannot be produced here |" in render(ROWS, state)


def test_a_table_is_put_into_its_place(tmp_path: Path) -> None:
    """What stood there before is gone, and all else is as it was; a document without the place is an error."""
    document = tmp_path / "page.md"
    document.write_text("before\n<!-- the table begins -->\nold\n<!-- the table ends -->\nafter\n")
    for _ in range(2):
        put_between(document, "the table", "| new |\n")
        assert document.read_text() == "before\n<!-- the table begins -->\n\n| new |\n\n<!-- the table ends -->\nafter\n"
    with pytest.raises(ValueError, match="other begins"):
        put_between(document, "other", "")
