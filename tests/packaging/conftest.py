"""What scripts/build has left in dist/ of this checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

DIST = Path(__file__).resolve().parents[2] / "dist"
PROGRAM = "lightfile6-insights-gateway"


@pytest.fixture(scope="session")
def onefile() -> Path:
    """Give the program as one file."""
    return _built(DIST / PROGRAM)


@pytest.fixture(scope="session")
def onedir() -> Path:
    """Give the folder with the unpacked program."""
    return _built(DIST / "onedir" / PROGRAM / PROGRAM).parent


def _built(program: Path) -> Path:
    if not program.is_file():
        pytest.fail(f"there is no {program}: run scripts/build first", pytrace=False)
    return program
