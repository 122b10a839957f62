"""Runs the gateway as a user does: the program in a process of its own, with a configuration file and a free port."""

from __future__ import annotations

import copy
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import psutil
import yaml

from gateway.spool.directories import OWN_FILES
from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.servers.minio import Minio

Settings = dict[str, Any]

HOST = "test-host"
STREAMS = ("usage", "error", "specimen")
PROGRAM = "lightfile6-insights-gateway"
# What the gateway asks of a store that is not there to find a way without: nothing of this machine may answer.
_ISOLATED = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent/config",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent/credentials",
    "NO_PROXY": "127.0.0.1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Target(Protocol):
    """A store with its three buckets."""

    @property
    def minio(self) -> Minio:
        """Where it listens."""
        ...

    @property
    def usage(self) -> str:
        """The bucket of usage reports."""
        ...

    @property
    def error(self) -> str:
        """The bucket of error reports."""
        ...

    @property
    def specimen(self) -> str:
        """The bucket of specimens."""
        ...


def executable() -> list[str]:
    """The command of the program: `GATEWAY_TEST_EXECUTABLE` (a frozen binary, say), else that of this environment."""
    if given := os.environ.get("GATEWAY_TEST_EXECUTABLE"):
        return shlex.split(given)
    installed = Path(sys.executable).with_name(PROGRAM)
    return [str(installed)] if installed.exists() else [sys.executable, "-m", "gateway"]


def settings_for(buckets: Target, **sections: Mapping[str, object]) -> Settings:
    """A configuration that delivers to these buckets within a second or so, with sections laid over it."""
    base: Settings = {
        "listen": {"host": "127.0.0.1"},
        "aws": {
            "region": "us-east-1",
            "endpoint": buckets.minio.endpoint,
            "access_key_id": buckets.minio.access_key,
            "secret_access_key": buckets.minio.secret_key,
        },
        "s3": {
            "usage_bucket": buckets.usage,
            "error_bucket": buckets.error,
            "specimen_bucket": buckets.specimen,
        },
        "aggregation": {"usage_interval": "1s", "error_interval": "1s", "host": HOST},
        "delivery": {"retry_min": "100ms", "retry_max": "500ms", "refused_retry": "1s"},
        "log": {"format": "json"},
    }
    return merged(base, sections)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Settings:
    """Lay sections over a configuration; a key of None is taken out of it."""
    result = copy.deepcopy(dict(base))
    for name, value in over.items():
        if isinstance(value, Mapping):
            result[name] = merged(result.get(name, {}), value)
        elif value is None:
            result.pop(name, None)
        else:
            result[name] = value
    return result


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the program gets of the environment: nothing that configures it, or an AWS account, but `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIGHTFILE6_", "AWS_"))}
    return kept | _ISOLATED | dict(extra or {})


@dataclass(frozen=True)
class Answer:
    """What a request was answered with."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Gateway:
    """One gateway with its folder, started, stopped and killed as often as a test likes.

    Args:
        folder: where its configuration, its spool and its logs are; another `Gateway` may share it.
        settings: the configuration; `cache_dir` is set here.
        environment: variables that the program gets beside those of `clean_environment`.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.cache = folder / "spool"
        self.settings = merged({"cache_dir": str(self.cache)}, settings)
        self.port = 0
        # How many files it may have open; None for as many as this process.
        self.open_files: int | None = None
        self._environment = clean_environment(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._log_path = folder / "none.log"

    # --- start and stop -------------------------------------------------------------------------------------------

    def configure(self, **sections: Mapping[str, object]) -> None:
        """Lay sections over the configuration; they count from the next start."""
        self.settings = merged(self.settings, sections)

    def launch(self, port: int = 0) -> None:
        """Start the process and return at once."""
        assert not self.is_running, "this gateway runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log_path = self.folder / f"gateway.{len(list(self.folder.glob('gateway.*.log'))) + 1}.log"
        self._spawn(self._command(port), self._environment)

    def _command(self, port: int) -> list[str]:
        """What is run; the log has its path by then."""
        command = [*executable(), "-p", str(port), *self.with_config()]
        if self.open_files is None:
            return command
        return ["sh", "-c", f'ulimit -n {self.open_files} && exec "$@"', "sh", *command]

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str], stdout: IO[bytes] | None = None) -> None:
        """Begin the process; what it says goes into the log, or what it says on STDOUT to where that is wanted."""
        with self._log_path.open("xb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
                # A process group of its own: what it may have started is killed with it.
                start_new_session=True,
            )

    def start(self) -> None:
        """Start the process and return once it says that it listens."""
        self.launch()
        until(lambda: self.events("listening") or not self.is_running, "the gateway to listen")
        assert self.events("listening"), f"the gateway did not start:\n{self.said()}"
        self.port = urlsplit(self.events("listening")[0]["address"]).port or 0

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, as `kill` does."""
        self._running().send_signal(number)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Return the exit code; fail if the process does not end in time."""
        process = self._running()
        try:
            code = process.wait(timeout_s * TIMEOUT_FACTOR)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the gateway did not end within {timeout_s * TIMEOUT_FACTOR:g} s:\n{self.said()}") from None
        self._process = None
        return code

    def stop(self, timeout_s: float = 30.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """Kill the process and all it has started, and return once it is gone."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run the program with other arguments to its end: `run("check-config", *gateway.with_config())`."""
        return subprocess.run(
            [*executable(), *arguments],
            env=self._environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s * TIMEOUT_FACTOR,
            check=False,
        )

    def with_config(self) -> tuple[str, str]:
        """The arguments that name the configuration, which is written here."""
        return "-c", str(self._write_config())

    @property
    def is_running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "this gateway was not started"
        return self._process

    def _write_config(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.yml"
        path.write_text(yaml.safe_dump(self.settings))
        return path

    # --- what it says ---------------------------------------------------------------------------------------------

    def said(self) -> str:
        """Everything the latest run has written."""
        return self._log_path.read_text("utf-8", "replace")

    def events(self, name: str, **fields: object) -> list[dict[str, Any]]:
        """The log lines of one event of the latest run, or those of them with these fields."""
        mark = f'"event":"{name}"'
        # A line whose end is still to come is no line yet.
        lines = self.said().split("\n")[:-1]
        found = [json.loads(line) for line in lines if mark in line and line.startswith("{")]
        return [event for event in found if fields.items() <= event.items()]

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series of `/metrics`; 0 if it is not there."""
        wanted = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
        series = f"lightfile6_{name}{{{wanted}}}" if wanted else f"lightfile6_{name}"
        found = re.search(rf"^{re.escape(series)} (\S+)$", self.get("/metrics").body.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def has_retried(self, kind: str, times: int) -> bool:
        """Whether every stream has failed so many times to be delivered: `transient`, throttled included, or `refused`."""
        kinds = (kind, "throttled") if kind == "transient" else (kind,)
        return all(
            sum(self.metric("delivery_failures_total", stream=stream, kind=it) for it in kinds) >= times for stream in STREAMS
        )

    # --- what is asked of it --------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: bytes | IO[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request on a connection of its own and return the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * TIMEOUT_FACTOR)
        try:
            # http.client would have them in Latin-1.
            encoded = {name: value.encode() for name, value in (headers or {}).items()}
            connection.request(method, path, body, encoded)
            with connection.getresponse() as response:
                return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        """GET a path."""
        return self.request("GET", path)

    def put(self, path: str, body: bytes | IO[bytes], *, user: str = "alice", headers: Mapping[str, str] | None = None) -> int:
        """PUT a body and return the status."""
        return self.request("PUT", path, body, {"USER_TOKEN": user, **(headers or {})}).status

    # --- what it takes --------------------------------------------------------------------------------------------

    def peak_memory(self) -> int:
        """Bytes of memory that its processes took at most since they began, or since `forget_peak`."""
        return sum(_kernel_bytes(process.pid, "VmHWM") for process in self._processes())

    def forget_peak(self) -> int:
        """Have the peak start anew from the memory taken now, and return that."""
        for process in self._processes():
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        return self.peak_memory()

    def left(self) -> list[str]:
        """The files in the spool, but for those of the gateway's own."""
        found = (path.relative_to(self.cache) for path in self.cache.rglob("*") if path.is_file())
        return sorted(str(path) for path in found if str(path) not in OWN_FILES)

    def _processes(self) -> list[psutil.Process]:
        main = psutil.Process(self._running().pid)
        return [main, *main.children(recursive=True)]


def _kernel_bytes(pid: int, name: str) -> int:
    """One of the kernel's figures on the memory of a process; psutil does not know the peak."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, f"no {name} of process {pid}"
    return int(found[1]) * 1024


MakeGateway = Callable[..., Gateway]
