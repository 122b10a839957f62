"""Runs pytest, and what failed once more, alone: a test that passes then is flaky, one that fails again has failed.

python -m testkit.twice ARGUMENTS OF PYTEST
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# `conftest.py` writes the ids of the tests that failed into the file that this variable names.
FAILED = "GATEWAY_TEST_FAILED"
# Of the checks that ran before the tests the first run has said what there is to say.
CHECKS = "GATEWAY_CHECKS_FAILED"
# Names a file to which the ids of flaky tests are added, for a run of several parts to list them at its end.
FLAKY = "GATEWAY_TEST_FLAKY"
# The variables of a run, which a run of tests within a test must not inherit.
OF_A_RUN = frozenset({"CI", CHECKS, "GATEWAY_TEST_ALL", FAILED, FLAKY})
# More than these are no accident, and would take long.
MOST = 20
TESTS_FAILED = 1


def main(arguments: list[str]) -> int:
    """Run the tests and return the exit status of pytest; 0 where nothing but flaky tests failed."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        status = _pytest(arguments, {**os.environ, FAILED: str(first)})
        failed = _ids(first)
        if status != TESTS_FAILED or not 0 < len(failed) <= MOST:
            return status
        _say(f"once more, alone: {_counted(failed)} that failed")
        without_checks = {name: value for name, value in os.environ.items() if name != CHECKS}
        # Without workers beside it, and one after the other.
        status = _pytest(["-p", "no:xdist", f"@{first}"], {**without_checks, FAILED: str(second)})
        again = _ids(second)
    flaky = [one for one in failed if one not in again]
    _say(f"flaky, failed at first and passed alone: {_counted(flaky)}")
    for one in flaky:
        print(one)  # noqa: T201 (its output)
    if flaky and FLAKY in os.environ:
        with Path(os.environ[FLAKY]).open("a", encoding="utf-8") as file:
            file.writelines(f"{one}\n" for one in flaky)
    if status != 0:
        _say(f"failed twice: {_counted(again)}")
        for one in again:
            print(one)  # noqa: T201 (its output)
    return status


def _pytest(arguments: list[str], environment: Mapping[str, str]) -> int:
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], env=environment, check=False).returncode


def _ids(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines() if file.exists() else []


def _counted(ids: list[str]) -> str:
    return f"{len(ids)} test{'' if len(ids) == 1 else 's'}"


def _say(text: str) -> None:
    print(f"== {text}", flush=True)  # noqa: T201 (its output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
