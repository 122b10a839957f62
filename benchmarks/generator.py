"""The load generator of our own, for what wrk cannot do: two writes a request, and a fixed rate.

`requests.c` beside this file is compiled where it is needed: a generator in Python would be slower than what it loads.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from array import array
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.cores import Cores, pinned
from benchmarks.load import Load, load_of
from benchmarks.settings import CannotRun, Wrong

SOURCE = Path(__file__).with_name("requests.c")
ONE_WRITE = -1
_SLACK_S = 30.0
_HEAD = """\
PUT {path} HTTP/1.1\r
Host: {host}\r
USER_TOKEN: alice\r
Content-Type: application/json\r
Content-Length: {length}\r
\r
"""


def compiled(directory: Path) -> Path:
    """Compile the generator into a directory; `CannotRun` if there is no compiler."""
    program = directory / "requests"
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotRun("a C compiler is missing; on Debian or Ubuntu: apt-get install gcc libc6-dev")
    try:
        subprocess.run([compiler, "-O2", "-o", str(program), str(SOURCE)], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise CannotRun(f"{compiler} cannot compile {SOURCE.name}:\n{error.stderr}") from error
    return program


@dataclass(frozen=True, slots=True)
class Paced:
    """A way to run the generator.

    Attributes:
        program: as `compiled` returned it; its directory is used for files in passing.
        body: of each request.
        cores: that it runs on, in one thread.
        connections: at once.
        gap_us: microseconds between a head and its body; 0 for two writes at once, `ONE_WRITE` for one.
        rate: requests a second, 0 for as many as are answered.
    """

    program: Path
    body: bytes
    cores: Cores
    connections: int
    gap_us: int = ONE_WRITE
    rate: float = 0.0

    def put(self, url: str, seconds: float) -> Load:
        """As `Generator` says; it waits for every answer, so that nothing is in flight at its end."""
        address = urlsplit(url)
        head, body, latencies = (self.program.with_name(name) for name in ("head", "body", "latencies"))
        head.write_bytes(_HEAD.format(path=address.path, host=address.netloc, length=len(self.body)).encode("ascii"))
        body.write_bytes(self.body)
        figures = (address.port, self.connections, seconds, self.rate, self.gap_us)
        command = pinned([str(self.program), *map(str, figures), str(head), str(body), str(latencies)], self.cores)
        said = subprocess.run(command, check=True, capture_output=True, timeout=seconds + _SLACK_S, text=True).stdout
        return parse(said, latencies.read_bytes(), url)


def parse(said: str, latencies: bytes, url: str) -> Load:
    """Read what the generator printed and wrote; `Wrong` if any request failed."""
    counted = json.loads(said)
    numbers = array("I")
    numbers.frombytes(latencies)
    if counted["refused"] or counted["broken"] or counted["unanswered"] or not numbers:
        raise Wrong(f"{url} did not answer every request as it should: {said.strip()}")
    return load_of(numbers, counted["seconds"])
