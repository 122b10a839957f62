"""Builds MinIO from source once, and starts it in a container or as a plain process on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers.process import ACCESS_KEY, SECRET_KEY, Server, ServerError, ServerProcess, answers
from testkit.servers.source import Say, Source, alone, built

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
SOURCE = Source("minio", "github.com/minio/minio", VERSION, "about three minutes")
IMAGE = f"lightfile6-test-minio:{VERSION}"
HEALTH = "/minio/health/live"

# The console would listen on every interface, and the update check would ask a host on the Internet.
QUIET = {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}

Minio = Server
MinioError = ServerError


class NoDockerError(Exception):
    """No Docker daemon here can run the container; the text says why."""


def binary(*, cache: Path, say: Say) -> Path:
    """Return the MinIO of `VERSION`, built if the cache does not hold it yet; `MinioError` if it cannot be."""
    return built(SOURCE, cache=cache, say=say)


class MinioProcess(ServerProcess):
    """A MinIO that can be stopped and started again on the same port with the same data."""

    NAME = "MinIO"
    HEALTH = HEALTH

    @property
    def minio(self) -> Minio:
        """Where it listens."""
        return self.server

    def arguments(self, data: Path) -> list[str]:
        """See `ServerProcess.arguments`."""
        return ["server", str(data), "--address", self.address]

    def environment(self) -> dict[str, str]:
        """See `ServerProcess.environment`."""
        return {**QUIET, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}


def healthy(endpoint: str) -> bool:
    """Ask a MinIO at this endpoint whether it can be used."""
    return answers(endpoint + HEALTH)


# --- in a container ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def in_container(program: Path) -> Iterator[Minio]:
    """Run a MinIO in a container, its port published on 127.0.0.1 only.

    Raises:
        NoDockerError: no daemon answers, or it cannot build or run the image.
    """
    with contextlib.ExitStack() as stack:
        try:
            minio = stack.enter_context(_container(program))
        except Exception as error:
            # docker, requests and testcontainers share no error class; the first line tells what is wrong.
            raise NoDockerError(str(error).strip().partition("\n")[0] or type(error).__name__) from error
        yield minio


@contextlib.contextmanager
def _container(program: Path) -> Iterator[Minio]:
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
        with alone(program.with_name("image.lock")):
            # A run that was killed leaves its container, which ends with the daemon and keeps its data.
            for left in client.containers.list(all=True, filters={"ancestor": IMAGE, "status": "exited"}):
                left.remove(v=True)
            if not client.images.list(name=IMAGE):
                with _build_context(program) as context:
                    client.images.build(path=context, tag=IMAGE, rm=True)
        container.with_envs(**QUIET)
        ready = HttpWaitStrategy(container.port, HEALTH).with_poll_interval(0.1)
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
def _build_context(program: Path) -> Iterator[str]:
    """Make a folder with the binary and a Dockerfile, whose WORKDIR makes the /tmp that MinIO needs."""
    context = program.with_name("image")
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir()
    try:
        os.link(program, context / "minio")
        dockerfile = 'FROM scratch\nCOPY minio /usr/bin/minio\nWORKDIR /tmp\nWORKDIR /\nENTRYPOINT ["/usr/bin/minio"]\n'
        (context / "Dockerfile").write_text(dockerfile)
        yield str(context)
    finally:
        shutil.rmtree(context)
