"""How arguments of the command line that make no sense are reported."""

from __future__ import annotations

import argparse
from typing import NoReturn

BAD_USAGE = 2
CONFIG_FILE = "/etc/lightfile6/config.yml"


class Arguments(argparse.ArgumentParser):
    """Tells a fault in one line, which a supervisor's log keeps together, and where to read more."""

    def error(self, message: str) -> NoReturn:
        """End the program with the exit code of bad usage."""
        self.exit(BAD_USAGE, f"{self.prog}: {message}; '{self.prog} --help' lists all there is\n")
