"""The command line: flags, subcommands, exit codes.

Exit codes: 0 drained; 2 bad usage or configuration; 3 stopped with data left in the spool; 1 else.
"""

from __future__ import annotations

import os
import signal
import sys

from gateway.service.inherited import Hangup, hangup, open_standard_descriptors, settle


def _stop_before_start(*_: object) -> None:
    """A signal before the gateway serves: nothing is drained, and an earlier run may have left data in the spool.

    An exception would not do: raised in the middle of an import or of a callback it is printed and forgotten.
    """
    os.write(2, b"lightfile6-insights-gateway: stopped by a signal before it served\n")
    os._exit(3)


def main() -> None:
    """Run the program and exit with its code."""
    # The very first thing: whatever is opened from here on must not get the number of a closed STDIN, STDOUT or STDERR.
    open_standard_descriptors()
    # As the first process of a container, a SIGTERM without a handler is ignored.
    signal.signal(signal.SIGTERM, _stop_before_start)
    signal.signal(signal.SIGINT, _stop_before_start)
    settle()
    arguments = sys.argv[1:]
    if arguments[:1] == ["healthcheck"]:
        # Before the heavy imports: containers ask every few seconds.
        from gateway.cli.healthcheck import healthcheck

        sys.exit(healthcheck(arguments[1:]))
    if arguments[:1] == ["worker"] and len(arguments) == 2 and arguments[1].isdigit():
        # Started by the gateway itself, which alone controls it: signals reach all processes of a group.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        from gateway.service.workers.main import main as work

        sys.exit(work(int(arguments[1])))
    if (meaning := hangup()) is Hangup.STOP:
        signal.signal(signal.SIGHUP, _stop_before_start)
    elif meaning is Hangup.RELOAD:
        # It waits until there is something that can be reloaded.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from gateway.cli.commands import run

    sys.exit(run(arguments))
