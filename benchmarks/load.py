"""Small requests at full speed: wrk, and what it counted."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.settings import CannotRun, Wrong

THREADS = 2
_SLACK_S = 30.0
# wrk takes what is set here without calling Lua for each request.
_SAME_NAME = """\
wrk.method = "PUT"
wrk.headers["USER_TOKEN"] = "alice"
wrk.headers["Content-Type"] = "application/json"
wrk.body = [==[{body}]==]
"""
# A name of its own for each request. Putting three strings together costs the client next to nothing.
_OTHER_NAMES = """\
local body = [==[{body}]==]
local threads = 0
function setup(thread) threads = threads + 1; thread:set("number", threads) end
local count = 0
local rest = " HTTP/1.1\\r\\nHost: localhost\\r\\nUSER_TOKEN: alice\\r\\nContent-Type: application/json\\r\\n"
    .. "Content-Length: " .. #body .. "\\r\\n\\r\\n" .. body
function request() count = count + 1; return "PUT /{run}-" .. number .. "-" .. count .. ".json" .. rest end
"""
_DONE = """\
function done(summary, latency)
    local e = summary.errors
    io.write(string.format('\\n{"requests":%d,"seconds":%f,"refused":%d,"broken":%d,"p50_ms":%f,"p99_ms":%f}\\n',
        summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load.

    Attributes:
        requests: that were answered as they should be.
        per_s: of them.
        p50_ms: the median of their latencies.
        p99_ms: the 99th percentile.
    """

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float


def require_wrk() -> None:
    """`CannotRun` if wrk is not here."""
    if shutil.which("wrk") is None:
        raise CannotRun("wrk is missing; on Debian or Ubuntu: apt-get install wrk")


def same_name(body: bytes) -> str:
    """A script for wrk that puts one body to the address it is given."""
    return _SAME_NAME.replace("{body}", body.decode("ascii")) + _DONE


def other_names(body: bytes, run: str) -> str:
    """A script for wrk that puts one body under ever other names; `run` keeps two runs apart."""
    return _OTHER_NAMES.replace("{body}", body.decode("ascii")).replace("{run}", run) + _DONE


def put(url: str, script: str, *, connections: int, seconds: float, scratch: Path) -> Load:
    """Load an address; `Wrong` if any request was not answered with a status below 400."""
    path = scratch / "load.lua"
    path.write_text(script, "ascii")
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(path), url]
    said = subprocess.run(command, check=True, capture_output=True, timeout=seconds + _SLACK_S, text=True).stdout
    counted = json.loads(said.strip().splitlines()[-1])
    if counted["refused"] or counted["broken"] or not counted["requests"]:
        raise Wrong(f"{url} did not answer every request as it should:\n{said}")
    per_s = counted["requests"] / counted["seconds"]
    return Load(counted["requests"], per_s, counted["p50_ms"], counted["p99_ms"])
