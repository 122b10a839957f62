"""The subcommands that need more than `healthcheck` does; each is imported when it is asked for."""

from __future__ import annotations

import os

from gateway.cli.healthcheck import healthcheck
from gateway.cli.output import complain
from gateway.cli.parser import AS_SERVICE, BAD_USAGE, PROGRAM, Arguments, parse
from gateway.core.errors import ConfigError, NoPlaceToListen, StartError

FAILED = 1


def run(arguments: list[str]) -> int:
    """Run what the arguments ask for and return the exit code."""
    options = parse(arguments)
    if options.command == "healthcheck":
        given = (("-p", options.port), ("-c", options.config))
        return healthcheck([word for flag, value in given if value is not None for word in (flag, str(value))])
    try:
        if options.command == "version":
            from gateway.cli.version import version

            return version()
        if options.as_service:
            from gateway.cli.service_environment import run_as_service

            return run_as_service([word for word in arguments if word != AS_SERVICE])
        from gateway.cli.configuration import configuration

        if options.command == "check-config":
            from gateway.cli.check_config import check_config

            return check_config(configuration(options, is_port_given=True), local=options.local is not None)
        from gateway.cli.serve import serve
        from gateway.service.activation import inherited_sockets

        inherited = inherited_sockets(os.environ, os.getpid())
        return serve(configuration(options, is_port_given=options.port is not None or bool(inherited)), options, inherited)
    except NoPlaceToListen:
        Arguments(prog=PROGRAM).error(
            "-p PORT is required: the port to listen on, for example -p 8080 (or the variable PORT, or listen.unix)"
        )
    except ConfigError as error:
        for fault in error.faults:
            complain(fault)
        return BAD_USAGE
    except StartError as error:
        complain(str(error))
        return FAILED
