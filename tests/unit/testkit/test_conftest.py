from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit import PYTHON_PATH
from testkit.servers import versitygw
from testkit.twice import OF_A_RUN


def run_pytest(folder: Path, test: str, mark: str = "", **environment: str) -> tuple[int, str]:
    """Run pytest on one test file, by the rules of this conftest, and return its exit status and its output."""
    file = folder / "test_inner.py"
    file.write_text(f"import pytest\n\n{mark}\ndef test_inner():\n    {test}\n")
    # The variables of the run that this test is part of would change the answer.
    ours = {name: value for name, value in os.environ.items() if name not in OF_A_RUN}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-c", os.devnull, "-q", "-rs", file],
        env={**ours, "PYTHONPATH": PYTHON_PATH, **environment},
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


def test_further_servers_are_asked_for(tmp_path: Path) -> None:
    """A test on a server that a newcomer need not build is left out, and is no skip, until all servers are asked for."""
    status, output = run_pytest(tmp_path, "assert False", "@pytest.mark.all_servers", CI="true")
    assert (status, "1 deselected" in output) == (pytest.ExitCode.NO_TESTS_COLLECTED, True)
    status, _ = run_pytest(tmp_path, "assert False", "@pytest.mark.all_servers", GATEWAY_TEST_ALL="1")
    assert status == pytest.ExitCode.TESTS_FAILED


def test_a_server_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    """A server that cannot be built or started is a skip that says why, which counts as a failure under CI."""
    cache = tmp_path / "cache"
    cache.mkdir()
    broken = cache / f"versitygw-{versitygw.SOURCE.version}"
    broken.write_text("#!/bin/sh\necho no extended attributes here\nexit 1\n")
    broken.chmod(0o755)
    wanted = {"GATEWAY_TEST_ALL": "1", "GATEWAY_TEST_CACHE": str(cache)}
    mark = "@pytest.mark.usefixtures('versity')"
    status, output = run_pytest(tmp_path, "pass", mark, **wanted)
    assert (status, "no versitygw" in output, "no extended attributes here" in output) == (0, True, True)
    status, output = run_pytest(tmp_path, "pass", mark, CI="true", **wanted)
    assert (status, "no extended attributes here" in output) == (1, True)
