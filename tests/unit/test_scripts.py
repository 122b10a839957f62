from __future__ import annotations

import os
import subprocess

import pytest

from testkit import CHECKOUT

SCRIPTS = [".ci/run", *sorted(f"scripts/{path.name}" for path in (CHECKOUT / "scripts").iterdir() if path.is_file())]


@pytest.mark.parametrize("script", SCRIPTS)
def test_executable(script: str) -> None:
    """A script runs by its name, without `bash` before it."""
    assert os.access(CHECKOUT / script, os.X_OK)


@pytest.mark.parametrize("script", SCRIPTS)
def test_syntax(script: str) -> None:
    """A script has no syntax error that bash finds by reading it."""
    done = subprocess.run(["bash", "-n", CHECKOUT / script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_setup_refuses_unknown_arguments() -> None:
    """A mistyped flag of `scripts/setup` installs nothing and tells the usage."""
    done = subprocess.run([CHECKOUT / "scripts" / "setup", "--develop"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "usage: scripts/setup [--dev|--build]" in done.stderr
