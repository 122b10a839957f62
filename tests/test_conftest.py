from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def run_pytest(folder: Path, test: str, **environment: str) -> tuple[int, str]:
    """Run pytest on one test file, by the rules of this conftest, and return its exit status and its output."""
    file = folder / "test_inner.py"
    file.write_text(f"import pytest\n\ndef test_inner():\n    {test}\n")
    # The variables of the run that this test is part of would change the answer.
    ours = {name: value for name, value in os.environ.items() if name not in {"CI", "GATEWAY_CHECKS_FAILED"}}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-c", os.devnull, "-q", file],
        env={**ours, "PYTHONPATH": str(HERE), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_skip_fails_under_ci(tmp_path: Path) -> None:
    """Under CI a skipped test fails the run, and the reason is printed."""
    status, output = run_pytest(tmp_path, "pytest.skip('no such server')", CI="true")
    assert status == 1
    assert "skipped, which counts as failed under CI" in output
    assert "no such server" in output


def test_skip_is_allowed_elsewhere(tmp_path: Path) -> None:
    """On a developer's machine a test may be skipped."""
    status, _ = run_pytest(tmp_path, "pytest.skip('no such server')")
    assert status == 0


def test_expected_failure_is_no_skip(tmp_path: Path) -> None:
    """Under CI an expected failure is not taken for a skip."""
    status, _ = run_pytest(tmp_path, "pytest.xfail('known')", CI="true")
    assert status == 0


def test_failed_checks_are_told(tmp_path: Path) -> None:
    """Checks that failed before the tests are named below them, and the closing line of pytest stays the last."""
    _, output = run_pytest(tmp_path, "pass", GATEWAY_CHECKS_FAILED="ruff check .\nmypy")
    *_, title, first, second, closing = output.rstrip().splitlines()
    assert "checks that failed before the tests" in title
    assert (first, second) == ("ruff check .", "mypy")
    assert closing.startswith("1 passed")
