"""Gateways that start four times as fast, since the process that becomes them has done its imports."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from testkit.deadlines import TIMEOUT_FACTOR
from testkit.gateway_process import Gateway, Settings, clean_environment, executable

DEADLINE_S = 30.0
# Starts gateways that have done their imports already, one after the other: these are three quarters of a start.
_TEMPLATE = """
import json, os, sys
import aiobotocore.session, gateway.cli.main, gateway.cli.serve
for line in sys.stdin:
    order = json.loads(line)
    if not (pid := os.fork()):
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(log, 1), os.dup2(log, 2)
        os.chdir(order["folder"])
        sys.argv[1:] = order["arguments"]
        gateway.cli.main.main()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Template:
    """A process that becomes a gateway again and again."""

    def __init__(self, interpreter: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [interpreter, "-c", _TEMPLATE],
            env=clean_environment(),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Unbuffered, so that what select says of the pipe is all there is to know.
            bufsize=0,
        )

    def fork(self, order: dict[str, object]) -> int:
        """Start one and return its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return self._number(DEADLINE_S)

    def wait(self, timeout_s: float) -> int | None:
        """The exit code of the one that was started last, None if it still runs."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        return self._number(0) if ready else None

    def _number(self, timeout_s: float) -> int:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout_s * TIMEOUT_FACTOR)
        line = self._process.stdout.readline() if ready else b""
        assert line, "the template of the gateway has ended or does not answer"
        return int(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def interpreter() -> str | None:
    """Which Python has the gateway; None if that is no program of a Python, but a frozen one."""
    command = executable()
    if command[1:] == ["-m", "gateway"]:
        return command[0]
    return None if "GATEWAY_TEST_EXECUTABLE" in os.environ else sys.executable


class ForkedGateway(Gateway):
    """A gateway that a template becomes."""

    def __init__(self, folder: Path, settings: Settings, template: Template) -> None:
        super().__init__(folder, settings)
        self._template = template
        self._pid = 0
        self._code: int | None = None

    def launch(self, port: int = 0) -> None:
        """See `Gateway.launch`."""
        arguments = ["-p", str(port), *self.with_config()]
        self._log_path = self.folder / "gateway.1.log"
        self._log_path.touch()
        self._pid = self._template.fork({"folder": str(self.folder), "log": str(self._log_path), "arguments": arguments})

    @property
    def is_running(self) -> bool:
        """See `Gateway.is_running`."""
        if self._pid and self._code is None:
            self._code = self._template.wait(0)
        return bool(self._pid) and self._code is None

    def signal(self, number: signal.Signals) -> None:
        """See `Gateway.signal`."""
        if self.is_running:
            os.kill(self._pid, number)

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """See `Gateway.wait`."""
        if self._code is None:
            self._code = self._template.wait(timeout_s * TIMEOUT_FACTOR)
        assert self._code is not None, f"the gateway did not end within {timeout_s * TIMEOUT_FACTOR:g} s:\n{self.said()}"
        return self._code

    def kill(self) -> None:
        """See `Gateway.kill`."""
        self.signal(signal.SIGKILL)
        if self._pid:
            self.wait()
