"""The catalogue of events has all that is told, and nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import gateway
from gateway.telemetry.events import EVENTS


def told_in(source: str) -> Iterator[str]:
    """Find the events that a source file logs."""
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if name == "Repeated":
            yield from map(event_of, call.args[1:3])
        elif name in ("info", "warning", "error") and owner.endswith("log"):
            yield event_of(call.args[0])
        elif name == "event" and owner.endswith("log"):
            yield event_of(call.args[1])


def event_of(node: ast.expr) -> str:
    """Name the event an expression stands for; one that cannot be read off is returned as its source."""
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


def all_told() -> set[str]:
    """Find every event told in the package; the log room's own lines are known here, and `Repeated` tells what it was given."""
    package = Path(gateway.__file__).parent
    sources = [path for path in package.rglob("*.py") if path.name not in ("log.py", "repeated_failure.py")]
    own = {"request done", "request failed", "log lines dropped"}
    return own.union(*(told_in(path.read_text("utf-8")) for path in sources))


def test_events_are_in_the_catalogue() -> None:
    """Every event that is told is in the catalogue."""
    assert sorted(all_told() - set(EVENTS)) == []


def test_catalogue_is_used() -> None:
    """Every event in the catalogue is told somewhere."""
    assert sorted(set(EVENTS) - all_told()) == []


def test_events_are_found_in_source() -> None:
    """The reading of the source finds events in every form in which they are told."""
    source = 'log.info("a", b=1)\nself._log.event(level, "b", {})\nRepeated(log, "c", "d")\nlog.error(x)'
    assert list(told_in(source)) == ["a", "b", "c", "d", "x"]
