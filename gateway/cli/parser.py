"""The arguments of the command line: flags, subcommands, and how ones that make no sense are reported."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import NoReturn

PROGRAM = "lightfile6-insights-gateway"
BAD_USAGE = 2
CONFIG_FILE = "/etc/lightfile6/config.yml"
DEFAULT_CONFIG = Path(CONFIG_FILE)
AS_SERVICE = "--as-service"
EXAMPLES = f"""\
examples:
  {PROGRAM} -p 8080                        with /etc/lightfile6/config.yml
  {PROGRAM} -p 8080 -c ./config.yml        with another file
  {PROGRAM} -p 8080 --local ./data         without S3: spool and objects under ./data
  LIGHTFILE6_S3_USAGE_BUCKET=b {PROGRAM} -p 8080   every key can come from the environment
  {PROGRAM} check-config -c ./config.yml   what is in effect, or everything that is wrong
  {PROGRAM} check-config --as-service      the same, with the user and the environment of the service
  {PROGRAM} healthcheck -p 8080            ask a running gateway
  {PROGRAM} version

exit codes:
  0 drained   1 failed   2 bad usage or configuration   3 stopped with data left in the spool
"""


class Arguments(argparse.ArgumentParser):
    """Reports a fault in one line, which a supervisor's log keeps together, and where to read more."""

    def error(self, message: str) -> NoReturn:
        """End the program with the exit code of bad usage."""
        self.exit(BAD_USAGE, f"{self.prog}: {message}; '{self.prog} --help' lists all there is\n")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments; the program ends with `BAD_USAGE` where they make no sense."""
    parser = Arguments(
        prog=PROGRAM,
        description="Receives usage reports, error reports and specimens over HTTP, and forwards them to S3 exactly once.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "check-config", "version", "healthcheck"),
        default="serve",
        help="default: serve",
    )
    parser.add_argument("-p", "--port", type=_port, metavar="PORT", help="port to listen on; by default $PORT")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help=f"configuration, default {DEFAULT_CONFIG}")
    parser.add_argument("--local", type=Path, metavar="DIR", help="no S3: spool and objects under DIR; needs no file")
    parser.add_argument(
        AS_SERVICE, action="store_true", help="check-config: with the user and the environment of the systemd service"
    )
    options = parser.parse_args(arguments)
    if options.as_service and options.command != "check-config":
        parser.error(f"{AS_SERVICE} goes with check-config only")
    if options.command == "serve" and options.port is None and (given := os.environ.get("PORT")):
        try:
            options.port = _port(given)
        except argparse.ArgumentTypeError as error:
            parser.error(f"the variable PORT: {error}")
    return options


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535, or 0 for any free one")
