"""An S3 server as a plain process on loopback."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from testkit.deadlines import TIMEOUT_FACTOR

ACCESS_KEY = "gateway-tests"
SECRET_KEY = "only-for-tests-on-loopback"


class ServerError(Exception):
    """A server cannot be built or started; the text says which command failed and what it printed last."""


@dataclass(frozen=True)
class Server:
    """Where an S3 server listens, and who may use it.

    Attributes:
        endpoint: `http://127.0.0.1:PORT`, as in `aws.endpoint`.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


class ServerProcess:
    """A server that can be stopped and started again on the same port with the same data.

    Attributes:
        NAME: what it is called in errors.
        HEALTH: the path that answers 200 once it can be used.
    """

    NAME: ClassVar[str]
    HEALTH: ClassVar[str]

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = program
        self._data = folder / "data"
        self._log = folder / f"{self.NAME.lower()}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.address = f"127.0.0.1:{free_port()}"
        self.server = Server(f"http://{self.address}", ACCESS_KEY, SECRET_KEY)

    def arguments(self, data: Path) -> list[str]:
        """Return the arguments of the program that keeps its objects in a folder."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return what the program is given beside the environment of the tests."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it and return once its health endpoint answers.

        Raises:
            ServerError: it ended at once or did not answer in time; the text holds the end of its log.
        """
        if self._process is not None:
            raise ServerError(f"this {self.NAME} runs already")
        self._data.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), *self.arguments(self._data)],
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_healthy(self._process, time.monotonic() + 60 * TIMEOUT_FACTOR)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it and return once the process is gone; one that is not running stays so."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20 * TIMEOUT_FACTOR)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _wait_until_healthy(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not answers(self.server.endpoint + self.HEALTH):
            # The wait between two questions ends early when the process does.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
            if process.poll() is not None or time.monotonic() > deadline:
                ending = "does not answer" if process.poll() is None else f"exited {process.returncode}"
                tail = self._log.read_text(errors="replace")[-4000:]
                raise ServerError(f"{self.NAME} at {self.server.endpoint} {ending}:\n{tail}")


def answers(url: str) -> bool:
    """Ask whether 200 is answered at an address."""
    # Proxies of the environment are not asked: the address is on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def free_port() -> int:
    """Find a port of 127.0.0.1 on which nothing listens.

    It lies below the range from which the kernel takes the ports of outgoing connections: while a server is stopped on
    purpose, no client's own socket can sit on its port.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
