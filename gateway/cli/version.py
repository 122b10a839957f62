"""The subcommand `version`."""

from __future__ import annotations

from gateway.cli.output import say
from gateway.cli.parser import PROGRAM
from gateway.core.build_info import current


def version() -> int:
    """Print which version this is, and return the exit code."""
    say(f"{PROGRAM} {current()}")
    return 0
