"""A change touches the tests of what was changed, and of what imports it, the nearest first."""

from __future__ import annotations

from pathlib import Path

from testkit import CHECKOUT
from testkit.changed import touched


def names(changed: str, distance: int) -> list[str]:
    """The tests that a change of one file touches, by their paths."""
    return [str(path.relative_to(CHECKOUT)) for path in touched([CHECKOUT / changed], distance)]


def test_a_room_touches_its_own_test() -> None:
    """At no distance it is the test that has the room's path, and no other."""
    assert names("gateway/core/bounded.py", 0) == ["tests/unit/core/test_bounded.py"]


def test_what_imports_it_is_touched_too() -> None:
    """An import away are the tests that import it, and those of the rooms that do."""
    found = names("gateway/core/bounded.py", 1)
    assert found[0] == "tests/unit/core/test_bounded.py"
    assert {"tests/unit/telemetry/test_log.py", "tests/unit/batching/test_batcher.py"} <= set(found)
    assert "tests/unit/spool/test_names.py" not in found


def test_a_test_touches_itself() -> None:
    """A test that is changed is run, and what is shared by tests touches those that use it."""
    assert names("tests/unit/core/test_text.py", 2) == ["tests/unit/core/test_text.py"]
    assert set(names("testkit/texts.py", 1)) >= {"tests/unit/core/test_text.py", "tests/unit/spool/test_names.py"}


def test_other_files_touch_none() -> None:
    """A page of the documentation, or a file that is gone, is imported by nothing."""
    assert touched([CHECKOUT / "README.md", CHECKOUT / "gateway" / "gone.py", Path("/etc/hosts")]) == []
