"""The row `end-to-end`: reports from the first request to the last object in a MinIO of its own."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import minio

from benchmarks.figures import Result, Series, table
from benchmarks.gateway_process import Gateway
from benchmarks.lines import body
from benchmarks.load import put, require_wrk, same_name
from benchmarks.ports import free_port
from benchmarks.settings import CannotRun, Settings, Wrong

ROUNDS = 3
SECONDS = 5.0
KEY = "benchmark-key"
START_TIMEOUT_S = 20.0
BUCKETS = ("usage", "error", "specimen")


def run(settings: Settings) -> Result:
    """Load the gateway, have it drain into MinIO, and count what arrived."""
    require_wrk()
    if settings.minio is None or not settings.minio.exists():
        raise CannotRun("end-to-end needs a MinIO program: give it with --minio-binary")
    received: list[float] = []
    delivered: list[float] = []
    with _minio(settings.minio, settings.directory / "minio") as endpoint:
        for number in range(settings.rounds or ROUNDS):
            one = _round(settings, endpoint, f"round-{number}/")
            received.append(one[0])
            delivered.append(one[1])
    result = Result("end-to-end: 1 KiB reports into MinIO on the same machine")
    rows = [
        ("received, synced", Series(tuple(received)).show()),
        ("from the first request to the last object in MinIO", Series(tuple(delivered)).show()),
    ]
    result.tables.append(table(("", "reports/s"), rows))
    result.notes.append("The lines that MinIO's objects say they hold were added up: every acknowledged report is there.")
    return result


def _round(settings: Settings, endpoint: str, prefix: str) -> tuple[float, float]:
    """Reports received a second, and reports a second with the drain counted in."""
    variables = {
        "LIGHTFILE6_AWS_ENDPOINT": f"http://{endpoint}",
        "LIGHTFILE6_AWS_ACCESS_KEY_ID": KEY,
        "LIGHTFILE6_AWS_SECRET_ACCESS_KEY": KEY,
        "LIGHTFILE6_S3_USAGE_PREFIX": prefix,
        **{f"LIGHTFILE6_S3_{name.upper()}_BUCKET": name for name in BUCKETS},
    }
    with Gateway(settings.directory / "gateway", variables, local=False) as gateway:
        begun = time.perf_counter()
        load = put(
            gateway.url("/usage"),
            same_name(body()),
            connections=settings.connections,
            seconds=settings.seconds or SECONDS,
            scratch=settings.directory,
        )
        gateway.stop()
        seconds = time.perf_counter() - begun
    found = _lines(endpoint, prefix)
    if not load.requests <= found <= load.requests + settings.connections:
        raise Wrong(f"{load.requests} reports were answered with 204 and {found} are in MinIO")
    return load.per_s, found / seconds


def _client(endpoint: str) -> minio.Minio:
    return minio.Minio(endpoint, access_key=KEY, secret_key=KEY, secure=False, region="us-east-1")


def _lines(endpoint: str, prefix: str) -> int:
    client = _client(endpoint)
    total = 0
    for found in client.list_objects("usage", prefix, recursive=True):
        headers = client.stat_object("usage", str(found.object_name)).metadata or {}
        # An object without lines is the gateway's own, by which it has tried the store.
        total += int({name.lower(): value for name, value in headers.items()}.get("x-amz-meta-lines", 0))
    return total


@contextmanager
def _minio(program: Path, data: Path) -> Iterator[str]:
    """Run a MinIO with the three buckets and give its endpoint."""
    data.mkdir()
    endpoint = f"127.0.0.1:{free_port()}"
    environment = os.environ | {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": KEY, "MINIO_BROWSER": "off"}
    command = [str(program), "server", "--quiet", str(data), "--address", endpoint]
    with (data.parent / "minio.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_for(endpoint, process)
        client = _client(endpoint)
        for bucket in BUCKETS:
            client.make_bucket(bucket)
        yield endpoint
    finally:
        process.terminate()
        process.wait()


def _wait_for(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until it answers; proxies of the environment are not asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            opener.open(f"http://{endpoint}/minio/health/live", timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Wrong(f"MinIO did not come up (exit code {process.poll()})")
