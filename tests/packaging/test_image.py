"""The image does all of the work as a container that may do nothing else."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.build_info import of_checkout
from image.rootfs import DATA, USER_ID
from testkit.buckets import Buckets
from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.gateway_process import PROGRAM
from testkit.servers.process import free_port
from testkit.stored import files

CHECKOUT = Path(__file__).resolve().parents[2]
MB = 1_000_000
MOST_BYTES = 35 * MB


# --- containers --------------------------------------------------------------------------------------------------


def docker(*arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run docker to its end."""
    return subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s * TIMEOUT_FACTOR,
        check=False,
    )


def answer(*arguments: str) -> str:
    """What docker prints to STDOUT, where it succeeds."""
    done = docker(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def build(tag: str) -> None:
    """Build the image with the script."""
    done = subprocess.run(
        [CHECKOUT / "scripts" / "image", "--tag", tag], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def needs_docker() -> None:
    """Skip what needs a Docker daemon where there is none."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker here")
    if (asked := docker("info")).returncode != 0:
        pytest.skip(f"no Docker daemon runs here: {asked.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def image(needs_docker: None, onedir: Path) -> Iterator[str]:
    """Build the image once, and remove it when all tests are done."""
    tag = f"{PROGRAM}:test-{secrets.token_hex(4)}"
    build(tag)
    yield tag
    docker("image", "rm", "--force", tag)


class Container:
    """One container of the image, on the network of this machine and with nothing that it does not need."""

    def __init__(self, image: str, volume: str, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.name = f"{PROGRAM}-test-{secrets.token_hex(4)}"
        # Gateway and health check read PORT; nothing outside of this machine may ask anything.
        variables = {"PORT": str(self.port), "LIGHTFILE6_LISTEN_HOST": "127.0.0.1", "AWS_EC2_METADATA_DISABLED": "true"}
        options = [f"--env={name}={value}" for name, value in (variables | environment).items()]
        options += ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=host"]
        answer("create", "--name", self.name, f"--volume={volume}:{DATA}", *options, image)

    def start(self) -> None:
        """Start it and return once it listens."""
        answer("start", self.name)
        until(lambda: self.has_said("listening") or not self.is_running, "the container to listen")
        assert self.is_running, self.log

    def signal(self, name: str) -> None:
        """Send it a signal, as `docker kill` does; one that has just ended gets none."""
        docker("kill", "--signal", name, self.name)

    def wait(self) -> int:
        """Return the exit code of a container that is about to end."""
        return int(answer("wait", self.name))

    def stop(self) -> int:
        """Stop it as `docker stop` does, and return the exit code."""
        answer("stop", "--time", "60", self.name)
        return self.wait()

    def remove(self) -> None:
        """Remove it; its volume stays."""
        docker("rm", "--force", self.name)

    def put(self, path: str, body: Path) -> int:
        """PUT a file and return the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * TIMEOUT_FACTOR)
        try:
            with body.open("rb") as file:
                connection.request("PUT", path, file, {"USER_TOKEN": "alice", "Content-Length": str(body.stat().st_size)})
                with connection.getresponse() as response:
                    return response.status
        finally:
            connection.close()

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return answer("inspect", "--format", "{{.State.Running}}", self.name) == "true"

    @property
    def health(self) -> str:
        """What its health check has found: starting, healthy, unhealthy."""
        return answer("inspect", "--format", "{{.State.Health.Status}}", self.name)

    @property
    def log(self) -> str:
        """What it has written to STDERR; nothing may have gone to STDOUT."""
        done = docker("logs", self.name)
        assert done.stdout == "", "the log goes to STDERR"
        return done.stderr

    def has_said(self, event: str) -> bool:
        """Whether an event is in its log."""
        return re.search(rf"^\S+ \w+ +{re.escape(event)}\b", self.log, re.MULTILINE) is not None


MakeContainer = Callable[..., Container]


@pytest.fixture
def volume(needs_docker: None) -> Iterator[str]:
    """Make a named volume; it is gone when the test ends."""
    name = answer("volume", "create")
    yield name
    docker("volume", "rm", "--force", name)


@pytest.fixture
def make_container(image: str, volume: str) -> Iterator[MakeContainer]:
    """Give what makes containers on the same volume, none of them started; all are gone when the test ends."""
    made: list[Container] = []

    def make(environment: dict[str, str], *, on: str = volume) -> Container:
        made.append(Container(image, on, environment))
        return made[-1]

    yield make
    for container in made:
        # Shown by pytest where the test failed.
        print(f"--- {container.name}\n{docker('logs', container.name).stderr[-6000:]}")  # noqa: T201
        container.remove()


def delivering_to(buckets: Buckets, *, endpoint: str = "") -> dict[str, str]:
    """The environment of a gateway that delivers to these buckets."""
    keys = {
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": endpoint or buckets.minio.endpoint,
        "AWS_ACCESS_KEY_ID": buckets.minio.access_key,
        "AWS_SECRET_ACCESS_KEY": buckets.minio.secret_key,
        "S3_USAGE_BUCKET": buckets.usage,
        "S3_ERROR_BUCKET": buckets.error,
        "S3_SPECIMEN_BUCKET": buckets.specimen,
        "AGGREGATION_USAGE_INTERVAL": "1s",
        "DELIVERY_RETRY_MIN": "100ms",
        "DELIVERY_RETRY_MAX": "500ms",
        "AGGREGATION_HOST": "test-host",
    }
    return {f"LIGHTFILE6_{name}": value for name, value in keys.items()}


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Write a report."""
    path = tmp_path / "report.json"
    path.write_bytes(b'{"hello":"world"}')
    return path


# --- the image ---------------------------------------------------------------------------------------------------


def test_what_the_image_is(image: str) -> None:
    """The image is small, is not root's, tells its health and what it is, and is stopped by a signal that drains."""
    (about,) = json.loads(answer("image", "inspect", image))
    assert about["Size"] <= MOST_BYTES
    config: dict[str, Any] = about["Config"]
    assert config["User"] == f"{USER_ID}:{USER_ID}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Cmd"] is None
    assert "PORT=8080" in config["Env"]
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert list(config["Volumes"]) == [DATA]
    # Without a shell there is only the form that needs none.
    assert config["Healthcheck"]["Test"] == ["CMD", *config["Entrypoint"], "healthcheck"]
    mark = "org.opencontainers.image."
    labels = {name.removeprefix(mark): value for name, value in config["Labels"].items() if name.startswith(mark)}
    assert {"title", "description", "licenses", "vendor", "version", "revision", "created"} <= set(labels)
    told = answer("run", "--rm", "--network=none", image, "version")
    said = f"{PROGRAM} {labels['version']} (commit {labels['revision'][:12]}, built {labels['created']})"
    assert told == said


def test_the_image_is_of_this_commit(image: str) -> None:
    """The image is never of an older commit than the checkout that it was asked for in."""
    labels = json.loads(answer("image", "inspect", "--format", "{{json .Config.Labels}}", image))
    assert labels["org.opencontainers.image.revision"] == of_checkout(CHECKOUT).commit


def test_built_again_it_has_the_same_files(image: str) -> None:
    """A second image of the same build has the same layers."""
    again = f"{PROGRAM}:test-{secrets.token_hex(4)}"
    build(again)
    try:
        assert answer("image", "inspect", "--format", "{{.RootFS.Layers}}", again) == answer(
            "image", "inspect", "--format", "{{.RootFS.Layers}}", image
        )
    finally:
        docker("image", "rm", "--force", again)


@pytest.mark.parametrize("arguments", [["--tags", "a:b"], ["--tag"], ["a:b"]], ids=" ".join)
def test_mistakes_build_nothing(arguments: list[str]) -> None:
    """A mistyped flag of `scripts/image` builds nothing and tells what it should have been."""
    done = subprocess.run([CHECKOUT / "scripts" / "image", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "--tag NAME:TAG" in done.stderr or "such as --tag" in done.stderr


# --- its work ----------------------------------------------------------------------------------------------------


def test_report_and_large_specimen(buckets: Buckets, make_container: MakeContainer, report: Path, tmp_path: Path) -> None:
    """With a read-only root and no capabilities, a report and a specimen of 100 MB arrive, and stopping drains."""
    specimen = tmp_path / "specimen.heic"
    specimen.write_bytes(os.urandom(100 * MB))
    container = make_container(delivering_to(buckets))
    container.start()
    assert container.put("/usage", report) == 204
    assert container.put("/specimen?uri=https%3A%2F%2Fexample.com%2Fspecimen.heic", specimen) == 204
    until(lambda: container.health == "healthy", "the container to be healthy", timeout_s=60)
    assert container.stop() == 0
    assert container.has_said("stopped")
    assert buckets.lines(buckets.usage, "20") == [report.read_bytes()]
    (stored,) = files(buckets, buckets.specimen)
    assert hashlib.sha256(stored.body).digest() == hashlib.sha256(specimen.read_bytes()).digest()
    assert stored.key.startswith("alice/")


def test_what_could_not_be_sent_waits_on_the_volume(buckets: Buckets, make_container: MakeContainer, report: Path) -> None:
    """With the store away the container ends with 3, and the next one on the same volume delivers."""
    away = delivering_to(buckets, endpoint=f"http://127.0.0.1:{free_port()}") | {"LIGHTFILE6_SHUTDOWN_DRAIN_TIMEOUT": "1s"}
    first = make_container(away)
    first.start()
    assert first.put("/usage", report) == 204
    assert first.stop() == 3
    first.remove()
    second = make_container(delivering_to(buckets))
    second.start()
    assert second.stop() == 0
    assert buckets.lines(buckets.usage, "20") == [report.read_bytes()]


@pytest.mark.parametrize("turn", range(5))
def test_a_signal_right_after_the_start(make_container: MakeContainer, turn: int) -> None:
    """A SIGTERM that comes before the program is ready ends it as well, as process 1 of its container."""
    container = make_container({f"LIGHTFILE6_S3_{name}_BUCKET": "unused" for name in ("USAGE", "ERROR", "SPECIMEN")})
    answer("start", container.name)
    container.signal("TERM")
    # 3 before it has drained, 0 if it came so far; 137 is what `docker stop` would make of a signal that was ignored.
    assert container.wait() in {0, 3}


def test_an_unhealthy_one_is_seen(image: str, make_container: MakeContainer) -> None:
    """The health check fails where nothing answers at its port."""
    container = make_container({f"LIGHTFILE6_S3_{name}_BUCKET": "unused" for name in ("USAGE", "ERROR", "SPECIMEN")})
    container.start()
    elsewhere = f"--env=PORT={free_port()}"
    asked = docker("exec", elsewhere, container.name, f"/opt/{PROGRAM}/{PROGRAM}", "healthcheck")
    assert asked.returncode == 1
    assert "not healthy" in asked.stderr
    asked = docker("exec", container.name, f"/opt/{PROGRAM}/{PROGRAM}", "healthcheck", "-p", str(container.port))
    assert (asked.returncode, asked.stderr) == (0, "")


# --- what operators get wrong ------------------------------------------------------------------------------------


def test_a_directory_of_somebody_else(make_container: MakeContainer, tmp_path: Path) -> None:
    """A mounted directory that the user of the image may not write to ends it with 1 and one line that says so."""
    mounted = tmp_path / "root's own"
    mounted.mkdir(mode=0o755)
    container = make_container(
        {f"LIGHTFILE6_S3_{name}_BUCKET": "unused" for name in ("USAGE", "ERROR", "SPECIMEN")}, on=str(mounted)
    )
    answer("start", container.name)
    assert container.wait() == 1
    assert f"cache_dir {DATA} cannot be used (Permission denied)" in container.log.splitlines()[-1]


def test_no_configuration(make_container: MakeContainer) -> None:
    """Without the names of the buckets it ends with 2 and says which keys are missing."""
    container = make_container({})
    answer("start", container.name)
    assert container.wait() == 2
    assert [line.split(": ")[1] for line in container.log.splitlines()] == [
        "s3.usage_bucket",
        "s3.error_bucket",
        "s3.specimen_bucket",
    ]
