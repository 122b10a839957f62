"""The load generator wrk: small requests at full speed, head and body in one write."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cores import Cores, pinned
from benchmarks.load import Load
from benchmarks.settings import CannotRun, Wrong

_SLACK_S = 30.0
# A peer that stalls for seconds is slow, and has broken nothing.
_TIMEOUT_S = 20
# wrk takes what is set here without calling Lua for each request.
_SAME_NAME = """\
wrk.method = "{method}"
wrk.headers["USER_TOKEN"] = "alice"
wrk.headers["Content-Type"] = "{content_type}"
wrk.body = [==[{body}]==]
"""
# A name of its own for each request. Putting three strings together costs the client next to nothing.
_OTHER_NAMES = """\
local body = [==[{body}]==]
local threads = 0
function setup(thread) threads = threads + 1; thread:set("number", threads) end
local count = 0
local rest = " HTTP/1.1\\r\\nHost: localhost\\r\\nUSER_TOKEN: alice\\r\\nContent-Type: {content_type}\\r\\n"
    .. "Content-Length: " .. #body .. "\\r\\n\\r\\n" .. body
function request() count = count + 1; return "{method} /{run}-" .. number .. "-" .. count .. ".json" .. rest end
"""
_DONE = """\
function done(summary, latency)
    local e = summary.errors
    io.write(string.format(
        '\\n{"requests":%d,"seconds":%f,"refused":%d,"broken":%d,"p50_ms":%f,"p99_ms":%f,"p999_ms":%f}\\n',
        summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000))
end
"""


@dataclass(frozen=True, slots=True)
class Wrk:
    """A way to run wrk.

    Attributes:
        body: of each request, ASCII.
        cores: that it runs on, a thread for each.
        connections: at once.
        scratch: a directory for its script.
        method: of the requests.
        content_type: of the body.
        other_names: whether each request asks for a path of its own, for servers that keep a file a path.
    """

    body: bytes
    cores: Cores
    connections: int
    scratch: Path
    method: str = "PUT"
    content_type: str = "application/json"
    other_names: bool = False

    def put(self, url: str, seconds: float) -> Load:
        """As `Generator` says. wrk hangs up at its end with a request on each connection: those are in flight."""
        path = self.scratch / "wrk.lua"
        path.write_text(self._script(), "ascii")
        threads = min(len(self.cores), self.connections)
        options = [f"-t{threads}", f"-c{self.connections}", f"-d{max(1, round(seconds))}s", f"--timeout={_TIMEOUT_S}s"]
        options += ["-s", str(path), url]
        command = pinned([_program(), *options], self.cores)
        said = subprocess.run(command, check=True, capture_output=True, timeout=seconds + _SLACK_S, text=True).stdout
        return parse(said, url, self.connections)

    def _script(self) -> str:
        # No run may ask for the paths of an earlier one.
        marks = {"body": self.body.decode("ascii"), "method": self.method, "content_type": self.content_type}
        script = _OTHER_NAMES if self.other_names else _SAME_NAME
        for name, text in {**marks, "run": str(time.monotonic_ns())}.items():
            script = script.replace(f"{{{name}}}", text)
        return script + _DONE


def parse(said: str, url: str, connections: int) -> Load:
    """Read what the script printed last; `Wrong` if any request failed."""
    counted = json.loads(said.strip().splitlines()[-1])
    if counted["refused"] or counted["broken"]:
        raise Wrong(f"{url} did not answer every request as it should:\n{said}")
    per_s = counted["requests"] / counted["seconds"]
    return Load(counted["requests"], connections, per_s, counted["p50_ms"], counted["p99_ms"], counted["p999_ms"])


def _program() -> str:
    found = shutil.which("wrk")
    if found is None:
        raise CannotRun("wrk is missing; on Debian or Ubuntu: apt-get install wrk")
    return found
