"""What a subcommand says: its answer on STDOUT, what is wrong on STDERR."""

from __future__ import annotations

import io
import sys

from gateway.cli.parser import PROGRAM
from gateway.core.errors import StartError


def say(text: str) -> None:
    """Write the answer of a subcommand; StartError if STDOUT does not take it."""
    try:
        print(text, flush=True)  # noqa: T201 (the answer of a subcommand goes to STDOUT)
    except OSError as error:
        # What is left in its buffer would be tried again at the exit.
        sys.stdout = io.StringIO()
        raise StartError(f"STDOUT does not take the answer ({error.strerror or error}): mend what reads it") from error


def complain(text: str) -> None:
    """Write what is wrong, in a line that begins with the name of the program."""
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)  # noqa: T201 (what is wrong goes to STDERR, the log not being there)
