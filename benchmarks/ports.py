"""Ports of 127.0.0.1 for the programs that are measured."""

from __future__ import annotations

import socket
import subprocess
import time

from benchmarks.settings import Wrong

START_TIMEOUT_S = 10.0


def free_port() -> int:
    """A port on which nothing listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return once a process listens; `Wrong` if it ended or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise Wrong(f"nothing listens on port {port} (exit code {process.poll()})")
