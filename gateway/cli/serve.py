"""The subcommand `serve`: one gateway, until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import uvloop

from gateway.cli.output import say
from gateway.config.schema import Config
from gateway.core.errors import StartError
from gateway.service.service import Service
from gateway.telemetry.log import Log


def serve(config: Config, options: argparse.Namespace, inherited: Sequence[socket.socket]) -> int:
    """Serve, and return the exit code."""
    objects = None if options.local is None else options.local / "objects"
    log = Log(config.log.level, config.log.format, is_shared=config.server.workers != 1).start()
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
                say(_welcome(port, objects))

    return await Service(config, options.port, objects, log, inherited=inherited, on_listening=welcome).run()


def _welcome(port: int, objects: Path) -> str:
    return (
        "Send a report:\n"
        f"  curl -X PUT -H 'USER_TOKEN: alice' --data '{{\"hello\":\"world\"}}' http://127.0.0.1:{port}/usage\n"
        "It appears, within seconds, as:\n"
        f"  {objects}/usage/YYYY/MM/DD/HH/*.jsonl.gz\n"
        "Read it with zcat. Stop with Ctrl-C."
    )
