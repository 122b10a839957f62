"""docker-compose.yml: the gateway that it configures, and the MinIO that has its buckets."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minio as s3
import pytest
import yaml

from gateway.config.load import load
from image.rootfs import DATA
from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.servers.minio import IMAGE, Minio, healthy
from testkit.servers.process import free_port

CHECKOUT = Path(__file__).resolve().parents[2]
FILE = CHECKOUT / "docker-compose.yml"
STREAMS = ("usage", "error", "specimen")


def service(name: str) -> dict[str, Any]:
    """One service of the file."""
    found = yaml.safe_load(FILE.read_text("utf-8"))["services"][name]
    assert isinstance(found, dict)
    return found


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run docker to its end."""
    return subprocess.run(
        ["docker", *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=120 * TIMEOUT_FACTOR, check=False
    )


def test_the_gateway_understands_its_environment() -> None:
    """Every variable is a key, none that is required is missing, and the store is the MinIO beside it."""
    gateway, store = service("gateway"), service("minio")
    config = load(None, required_file=False, environ=gateway["environment"], overrides={}, local=False)
    assert config.aws.endpoint == "http://minio:9000"
    assert config.aws.access_key_id == store["environment"]["MINIO_ROOT_USER"]
    assert config.aws.secret_access_key == store["environment"]["MINIO_ROOT_PASSWORD"]
    assert config.shutdown.request_timeout + config.shutdown.drain_timeout < int(gateway["stop_grace_period"].removesuffix("s"))
    assert gateway["volumes"] == [f"spool:{DATA}"]


def test_nothing_is_open_to_others() -> None:
    """Every port is published on loopback only, because everybody knows the password."""
    ports = [port for name in ("gateway", "minio") for port in service(name)["ports"]]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.fixture
def store(minio_binary: Path, minio: Minio) -> Iterator[Minio]:
    """Run the MinIO of the file, on top of the one of the tests."""
    if shutil.which("docker") is None or (asked := docker("info")).returncode != 0:
        pytest.skip("no Docker daemon runs here" + (f": {asked.stderr.strip()}" if shutil.which("docker") else ""))
    about, name = service("minio"), f"lightfile6-test-compose-{secrets.token_hex(4)}"
    context = str(CHECKOUT / about["build"]["context"])
    built = docker("build", "--tag", name, "--build-arg", f"MINIO_IMAGE={IMAGE}", context)
    assert built.returncode == 0, built.stderr
    environment = [f"--env={key}={value}" for key, value in about["environment"].items()]
    address = f"127.0.0.1:{free_port()}"
    command = [*about["command"][:2], "--address", address, "--console-address", f"127.0.0.1:{free_port()}"]
    started = docker(
        *("run", "--detach", "--name", name, "--network=host", "--volume", f"{name}:/buckets", *environment, name, *command)
    )
    try:
        assert started.returncode == 0, started.stderr
        until(lambda: healthy(f"http://{address}"), "the MinIO of the compose file")
        yield Minio(f"http://{address}", about["environment"]["MINIO_ROOT_USER"], about["environment"]["MINIO_ROOT_PASSWORD"])
    finally:
        docker("rm", "--force", name)
        docker("volume", "rm", "--force", name)
        docker("image", "rm", "--force", name)


def test_the_buckets_are_there(store: Minio) -> None:
    """A new volume has the buckets that the gateway delivers to, and no other."""
    client = s3.Minio(
        store.endpoint.removeprefix("http://"), access_key=store.access_key, secret_key=store.secret_key, secure=False
    )
    environment = service("gateway")["environment"]
    wanted = {environment[f"LIGHTFILE6_S3_{stream.upper()}_BUCKET"] for stream in STREAMS}
    assert {bucket.name for bucket in client.list_buckets()} == wanted


def test_the_file_is_understood() -> None:
    """The file has no key that compose would refuse; where compose is at hand, it says so itself."""
    text = FILE.read_text("utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) == {
        *("GATEWAY_IMAGE", "GATEWAY_PORT", "MINIO_IMAGE", "MINIO_PORT", "MINIO_CONSOLE_PORT"),
    }
    if shutil.which("docker") and docker("compose", "version").returncode == 0:
        done = docker("compose", "config", "--format", "json")
        assert done.returncode == 0, done.stderr
        assert set(json.loads(done.stdout)["services"]) == {"gateway", "minio"}
