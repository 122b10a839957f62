"""Which version this is: the tag of the commit, and how far from it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown"
# Written by the build into the frozen program; a checkout asks git instead.
FROZEN = Path(__file__).resolve().parents[1] / "version.json"

_DESCRIBED = re.compile(
    r"v(?P<release>\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?)-(?P<ahead>\d+)-g(?P<commit>[0-9a-f]+)(?P<dirty>-dirty)?"
)
_GIT_DEADLINE_S = 5.0


@dataclass(frozen=True)
class Version:
    """What is running.

    Attributes:
        number: of a tagged commit its tag without the `v`: `1.2.3`; else with how far it is from it: `1.2.3+5.g0123456`.
        commit: the commit, in full; `unknown` outside of a checkout.
        built: when the program was frozen, `2026-11-21T12:00:00Z`; empty when it runs from source.
    """

    number: str
    commit: str
    built: str = ""

    def __str__(self) -> str:
        return f"{self.number} (commit {self.commit[:12]}, {f'built {self.built}' if self.built else 'from source'})"


def current() -> Version:
    """What the program that asks is."""
    try:
        return Version(**json.loads(FROZEN.read_bytes()))
    except FileNotFoundError:
        return of_checkout(Path(__file__).resolve().parents[2])


def of_checkout(checkout: Path) -> Version:
    """What a checkout holds, as git describes it; version 0.0.0 where there is no git, or no tag yet."""
    # An installed package may lie inside a checkout of something else.
    if not (checkout / ".git").exists():
        return Version("0.0.0", UNKNOWN)
    commit = _git(checkout, "rev-parse", "HEAD") or UNKNOWN
    described = _DESCRIBED.fullmatch(
        _git(checkout, "describe", "--tags", "--match", "v[0-9]*.[0-9]*.[0-9]*", "--long", "--dirty", "--abbrev=7")
    )
    if described is None:
        ahead, dirty = _git(checkout, "rev-list", "--count", "HEAD"), _git(checkout, "status", "--porcelain", "-uno")
        return Version(f"0.0.0+{ahead or 0}.g{commit[:7]}{'.dirty' if dirty else ''}", commit)
    number, dirty = described["release"], described["dirty"]
    if described["ahead"] != "0" or dirty:
        number += f"+{described['ahead']}.g{described['commit']}{'.dirty' if dirty else ''}"
    return Version(number, commit)


def _git(checkout: Path, *arguments: str) -> str:
    """The answer of git about this checkout, whatever its owner and whatever the environment says; empty if none."""
    try:
        done = subprocess.run(  # noqa: S603 (the arguments are those above)
            ["git", "-c", "safe.directory=*", "-C", str(checkout), *arguments],  # noqa: S607 (git is wherever the PATH has it)
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_GIT_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
