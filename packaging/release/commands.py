"""Runs other programs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from release.errors import ReleaseError


def run(*command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None, stdin: str | None = None) -> None:
    """Run a program, whose output goes where that of the release goes.

    Raises:
        ReleaseError: it failed, or is not there.
    """
    _started(command, cwd, environment, stdin, capture=False)


def answer(*command: str | Path, cwd: Path) -> str:
    """What a program prints to STDOUT, without the white space around it.

    Raises:
        ReleaseError: it failed, or is not there.
    """
    return _started(command, cwd, None, None, capture=True).stdout.strip()


def succeeds(*command: str | Path, cwd: Path) -> bool:
    """Whether a program ends with 0; what it prints is not shown."""
    try:
        _started(command, cwd, None, None, capture=True)
    except ReleaseError:
        return False
    return True


def _started(
    command: tuple[str | Path, ...], cwd: Path, environment: Mapping[str, str] | None, stdin: str | None, *, capture: bool
) -> subprocess.CompletedProcess[str]:
    name = " ".join(str(word) for word in command[:3])
    try:
        done = subprocess.run(  # noqa: S603 (the words are this project's own)
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            # Never the terminal: nothing may stop and ask.
            input=stdin or "",
            capture_output=capture,
            text=True,
            check=False,
        )
    except OSError as error:
        raise ReleaseError(f"{command[0]} could not be run ({error.strerror}).") from error
    if done.returncode != 0:
        said = f": {' '.join(done.stderr.split())}" if capture and done.stderr.strip() else ""
        raise ReleaseError(f"`{name}` ended with {done.returncode}{said}.")
    return done
