"""The bugs that are planted to prove the crash matrix can still be planted."""

from __future__ import annotations

from pathlib import Path

import pytest
from reliability.planted import Bug, bugs, plant

from testkit import CHECKOUT


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: bug.patch.stem)
def test_a_bug_can_be_planted(bug: Bug, tmp_path: Path) -> None:
    """The patch fits the gateway as it is, and what comes of it is still Python."""
    plant(bug, tmp_path / "copy")
    changed = [path for path in (tmp_path / "copy").rglob("*.py") if path.read_text() != _sound(path, tmp_path).read_text()]
    assert changed
    compile(changed[0].read_text(), changed[0].name, "exec")


def _sound(path: Path, root: Path) -> Path:
    return CHECKOUT / path.relative_to(root / "copy")
