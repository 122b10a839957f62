"""A test that fails is run once more, alone: what passes then is flaky, what fails again has failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit import PYTHON_PATH
from testkit.twice import OF_A_RUN

# Fails until it has run before.
FLAKY = """
def test_flaky(tmp_path_factory):
    mark = Path(__file__).with_name("ran")
    ran = mark.exists()
    mark.touch()
    assert ran
"""
BROKEN = """
@pytest.fixture
def broken():
    raise OSError("no such thing")

@pytest.mark.parametrize("text", ["a b", "@x"])
def test_broken(text, broken):
    pass
"""
SKIPPED = """
def test_skipped():
    pytest.skip("no such server")
"""


def twice(folder: Path, tests: str, *arguments: str, **environment: str) -> tuple[int, list[str]]:
    """Run tests by the rules of the conftest, and return the exit status and the lines that were printed."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_inner.py").write_text(f"from pathlib import Path\nimport pytest\n\n{tests}\n")
    ours = {name: value for name, value in os.environ.items() if name not in OF_A_RUN}
    done = subprocess.run(
        [sys.executable, "-m", "testkit.twice", "-q", *arguments, "test_inner.py"],
        env={**ours, "PYTHONPATH": PYTHON_PATH, "PYTEST_ADDOPTS": "-p conftest -p no:cacheprovider", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_a_flaky_test_is_named_and_is_no_failure(workers: tuple[str, ...], tmp_path: Path) -> None:
    """A test that fails among others and passes alone is named in the last lines, and the run succeeds."""
    listed = tmp_path / "flaky"
    listed.write_text("of another part\n")
    status, lines = twice(tmp_path, FLAKY, *workers, GATEWAY_TEST_FLAKY=str(listed))
    assert status == 0
    assert lines[-2:] == ["== flaky, failed at first and passed alone: 1 test", "test_inner.py::test_flaky"]
    assert listed.read_text() == "of another part\ntest_inner.py::test_flaky\n"


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    """A test that fails again fails the run, an error of its fixtures included; the flaky one beside it is still named."""
    status, lines = twice(tmp_path, FLAKY + BROKEN)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert lines[-5:] == [
        "== flaky, failed at first and passed alone: 1 test",
        "test_inner.py::test_flaky",
        "== failed twice: 2 tests",
        "test_inner.py::test_broken[a b]",
        "test_inner.py::test_broken[@x]",
    ]


def test_what_passes_runs_once(tmp_path: Path) -> None:
    """Where nothing fails nothing is run again."""
    status, lines = twice(tmp_path, "def test_right():\n    pass")
    assert (status, [line for line in lines if line.startswith("==")]) == (0, [])


def test_many_failures_are_no_accident(tmp_path: Path) -> None:
    """Where more than a few tests fail they are not run again."""
    many = "@pytest.mark.parametrize('number', range(21))\ndef test_many(number):\n    assert False"
    status, lines = twice(tmp_path, many)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert not [line for line in lines if "once more" in line]


def test_a_forbidden_skip_is_not_forgiven(tmp_path: Path) -> None:
    """A run that must not skip and does has failed, whatever its flaky tests do when they run again."""
    status, lines = twice(tmp_path, FLAKY + SKIPPED, CI="true")
    assert status == pytest.ExitCode.TESTS_FAILED
    assert not [line for line in lines if "once more" in line]
