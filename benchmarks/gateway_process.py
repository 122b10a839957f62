"""The gateway as a process with the local store, as a user would start it."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Self

from benchmarks.cores import Cores, pinned
from benchmarks.settings import Wrong

FROM_SOURCE = (sys.executable, "-m", "gateway")
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 300.0
COMPLAINTS = 10
_ADDRESS = re.compile(rb" listening .*http://127\.0\.0\.1:(\d+)")
# The intervals of production instead of those of a desk: no batch falls into a measurement.
_ENVIRONMENT = {
    "LIGHTFILE6_LISTEN_HOST": "127.0.0.1",
    "LIGHTFILE6_AGGREGATION_USAGE_INTERVAL": "10m",
    "LIGHTFILE6_AGGREGATION_ERROR_INTERVAL": "10m",
}


class NotStarted(Wrong):
    """The gateway ended, or did not listen in time."""


class Gateway:
    """One gateway that listens while the `with` block runs.

    Args:
        directory: gets `spool`, `objects` and the log; removed at the end.
        variables: configuration beside the default, by the names of the environment.
        local: whether the local store is used.
        cores: that all its processes stay on; None for every core.
        command: the program, by default that of the environment.

    Attributes:
        pid: of the process.
        port: it listens on.
        started_s: seconds from the start of the process to its first request.
    """

    def __init__(
        self,
        directory: Path,
        variables: Mapping[str, str] | None = None,
        *,
        local: bool = True,
        cores: Cores | None = None,
        command: Sequence[str] = FROM_SOURCE,
    ) -> None:
        self.directory = directory
        self._command = pinned(command, cores) if cores else list(command)
        self.objects = directory / "objects"
        self.log = directory / "gateway.log"
        self._arguments = ["--local", str(directory)] if local else []
        own = {} if local else {"LIGHTFILE6_CACHE_DIR": str(directory / "spool")}
        self._environment = _clean_environment() | _ENVIRONMENT | own | dict(variables or {})
        self.port = 0
        self.started_s = 0.0

    def __enter__(self) -> Self:
        self.directory.mkdir(exist_ok=True)
        begun = time.perf_counter()
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, "-p", "0", *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
                # Else `-m` would take the checkout's package even where PYTHONPATH names another to be measured.
                cwd=self.directory,
                # Its workers are ended with it, whatever became of it.
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.port = self._wait_for_port()
        self.started_s = time.perf_counter() - begun
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, Wrong):
            error.add_note(f"of the gateway's log:\n{self._complaints()}")
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self.directory)

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.port}{path}"

    def stop(self) -> float:
        """Have it drain, and return the seconds that took; `Wrong` if anything is left."""
        begun = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_TIMEOUT_S)
        if code != 0:
            raise Wrong(f"the gateway stopped with code {code}:\n{self._last_words()}")
        return time.perf_counter() - begun

    def delivered_lines(self, stream: str = "usage") -> int:
        """How many lines are in the objects of a report stream."""
        total = 0
        for path in (self.objects / stream).rglob("*.jsonl.gz"):
            with gzip.open(path) as file:
                while chunk := file.read(1 << 20):
                    total += chunk.count(b"\n")
        return total

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline:
            if match := _ADDRESS.search(self.log.read_bytes()):
                return int(match[1])
            time.sleep(0.001)
        words = self._last_words()
        self.__exit__(None, None, None)
        raise NotStarted(f"the gateway did not start:\n{words}")

    def _complaints(self) -> str:
        """The first lines of the log that tell of something that did not go as it should."""
        with self.log.open("rb") as log:
            told = (line for line in log if b" info " not in line[:64] or b" failed " in line)
            return b"".join(islice(told, COMPLAINTS)).decode("utf-8", "replace")

    def _last_words(self) -> str:
        return self.log.read_text("utf-8", errors="replace")[-2000:]


def _clean_environment() -> dict[str, str]:
    """Nothing of the caller's that configures a gateway."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("LIGHTFILE6_", "AWS_"))}
