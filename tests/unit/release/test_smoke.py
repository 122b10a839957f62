"""The program is tried as a user would use it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from testkit import CHECKOUT
from testkit.deadlines import TIMEOUT_FACTOR
from testkit.gateway_process import clean_environment, executable

SMOKE = CHECKOUT / "packaging" / "release" / "smoke"


def smoke(folder: Path, program: str, deadline_s: int = 60) -> subprocess.CompletedProcess[str]:
    """Try a program that is written in bash, and whose `real` is the gateway."""
    path = folder / "program"
    path.write_text(f'#!/bin/bash\nreal() {{ exec {" ".join(executable())} "$@"; }}\n{program}\n')
    path.chmod(0o755)
    environment = clean_environment({"TMPDIR": str(folder), "SMOKE_DEADLINE_S": str(deadline_s)})
    return subprocess.run(
        [SMOKE, path], env=environment, capture_output=True, text=True, timeout=120 * TIMEOUT_FACTOR, check=False
    )


def test_the_gateway_passes(tmp_path: Path) -> None:
    """The gateway takes a report, drains, and leaves the report in its store; nothing is left behind."""
    done = smoke(tmp_path, 'real "$@"')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("smoke: passed: lightfile6-insights-gateway ")
    assert [path.name for path in tmp_path.iterdir()] == ["program"]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("echo broken >&2; exit 4", "version ended with 4"),
        ('[ "$1" = version ] || { echo the reason; exit 1; }', "it ended before it listened\nthe reason"),
        ('[ "$1" = version ] || exec sleep 30', "it did not listen within 3 s"),
        ('[ "$1" != healthcheck ] || exit 1; real "$@"', "healthcheck ended with 1"),
        ('[ "$1" != -p ] || export LIGHTFILE6_AGGREGATION_ENVELOPE=true; real "$@"', "the object in the store is not the report"),
        ('[ "$1" != -p ] || set -- -p 0 --local "${4%store}other"; real "$@"', "there are 0 objects in the store"),
    ],
)
def test_a_broken_program_fails(tmp_path: Path, program: str, told: str) -> None:
    """A program that does not do one of the steps fails, and what it said is shown."""
    done = smoke(tmp_path, program, 3 if "3 s" in told else 60)
    assert done.returncode == 1
    assert f"smoke: {told}" in done.stderr


def test_a_program_that_does_not_drain_fails(tmp_path: Path) -> None:
    """A program that ends with another code than 0 after SIGTERM fails."""
    other = 'if [ "$1" = -p ]; then real "$@" & trap "kill $!; wait; exit 3" TERM; wait; fi; real "$@"'
    done = smoke(tmp_path, other)
    assert done.returncode == 1
    assert "smoke: it ended with 3 after SIGTERM" in done.stderr
