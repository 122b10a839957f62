"""The subcommands that need the whole program: serve, `check-config`, `version`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from gateway.cli import check_config
from gateway.cli.arguments import BAD_USAGE, CONFIG_FILE, Arguments
from gateway.cli.healthcheck import healthcheck
from gateway.cli.service_environment import run_as_service
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.core.build_info import current
from gateway.core.errors import ConfigError, NoPlaceToListen, StartError
from gateway.service.activation import inherited_sockets
from gateway.service.service import Service
from gateway.telemetry.log import Log

PROGRAM = "lightfile6-insights-gateway"
DEFAULT_CONFIG = Path(CONFIG_FILE)
FAILED = 1
AS_SERVICE = "--as-service"
# To see an object appear when the program is tried on a desk.
LOCAL_DEFAULTS = {"aggregation.usage_interval": "10s", "aggregation.error_interval": "10s"}
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


def run(arguments: list[str]) -> int:
    """Run what the arguments ask for and return the exit code."""
    options = _parse(arguments)
    if options.command == "healthcheck":
        given = (("-p", options.port), ("-c", options.config))
        return healthcheck([word for flag, value in given if value is not None for word in (flag, str(value))])
    try:
        if options.command == "version":
            _say(f"{PROGRAM} {current()}")
            return 0
        if options.as_service:
            return run_as_service([word for word in arguments if word != AS_SERVICE])
        inherited = inherited_sockets(os.environ, os.getpid()) if options.command == "serve" else []
        config = _config(options, is_port_given=options.command != "serve" or options.port is not None or bool(inherited))
        if options.command == "check-config":
            return _check_config(config, local=options.local is not None)
        return _serve(config, options, inherited)
    except NoPlaceToListen:
        Arguments(prog=PROGRAM).error(
            "-p PORT is required: the port to listen on, for example -p 8080 (or the variable PORT, or listen.unix)"
        )
    except ConfigError as error:
        for fault in error.faults:
            _complain(fault)
        return BAD_USAGE
    except StartError as error:
        _complain(str(error))
        return FAILED


def _parse(arguments: list[str]) -> argparse.Namespace:
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


def _config(options: argparse.Namespace, *, is_port_given: bool) -> Config:
    defaults: dict[str, str] = {}
    overrides: dict[str, object] = {}
    path: Path | None = options.config or DEFAULT_CONFIG
    if options.local is not None:
        if options.config is None:
            defaults = LOCAL_DEFAULTS
        options.local = _absolute(options.local)
        overrides["cache_dir"] = options.local / "spool"
        path = options.config
    return load(
        path,
        required_file=options.config is not None,
        environ=os.environ,
        overrides=overrides,
        defaults=defaults,
        local=options.local is not None,
        is_port_given=is_port_given,
    )


def _absolute(path: Path) -> Path:
    """A path that means the same wherever the process is; StartError if that is nowhere."""
    try:
        return path.absolute()
    except FileNotFoundError as error:
        raise StartError(
            f"--local {path}: the working directory was removed; start it elsewhere, or give a whole path"
        ) from error


def _serve(config: Config, options: argparse.Namespace, inherited: Sequence[socket.socket]) -> int:
    objects = None if options.local is None else options.local / "objects"
    log = Log(config.log.level, config.log.format, is_shared=config.server.workers != 1)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serving(config, options, objects, log, inherited))
    finally:
        log.close()


async def _serving(
    config: Config, options: argparse.Namespace, objects: Path | None, log: Log, inherited: Sequence[socket.socket]
) -> int:
    def welcome(port: int) -> None:
        if objects is not None and port:
            # Advice for a person who tries the program; the gateway runs without it.
            with contextlib.suppress(StartError):
                _say(_welcome(port, objects))

    return await Service(config, options.port, objects, log, inherited=inherited, on_listening=welcome).run()


def _welcome(port: int, objects: Path) -> str:
    return (
        "Send a report:\n"
        f"  curl -X PUT -H 'USER_TOKEN: alice' --data '{{\"hello\":\"world\"}}' http://127.0.0.1:{port}/usage\n"
        "It appears, within seconds, as:\n"
        f"  {objects}/usage/YYYY/MM/DD/HH/*.jsonl.gz\n"
        "Read it with zcat. Stop with Ctrl-C."
    )


def _check_config(config: Config, *, local: bool) -> int:
    """Print what is in effect, then what is wrong, or what was proved."""
    _say(check_config.printed(config))
    found = asyncio.run(check_config.check(config, local=local))
    for fault in found.faults:
        _complain(fault)
    if not found.faults:
        # As comments, so that what is printed stays a configuration.
        _say("\n".join(f"# {sentence}." for sentence in found.proved))
    return BAD_USAGE if found.faults else 0


def _say(text: str) -> None:
    """Write the answer of a subcommand; StartError if STDOUT does not take it."""
    try:
        print(text, flush=True)  # noqa: T201 (the answer of a subcommand goes to STDOUT)
    except OSError as error:
        # What is left in its buffer would be tried again at the exit.
        sys.stdout = io.StringIO()
        raise StartError(f"STDOUT does not take the answer ({error.strerror or error}): mend what reads it") from error


def _complain(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)  # noqa: T201 (what is wrong goes to STDERR, the log not being there)
