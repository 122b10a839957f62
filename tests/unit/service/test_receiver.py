"""A defect of the receiving half ends the process, so that whoever watches over it starts a sound one."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from testkit.deadlines import until
from testkit.spool import WAIT_S

# The writer of one stream meets an error that nobody foresaw.
DEFECTIVE = """\
import sys
from gateway.cli import main
from gateway.spool.journal import Journal
sound = Journal._round
def round_(journal, hour, entries):
    if journal._stream.name == "usage":
        raise ZeroDivisionError
    sound(journal, hour, entries)
Journal._round = round_
sys.exit(main.main())
"""


def put(port: int, path: str) -> int:
    """Send a report and return the status; 0 where the connection ends without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request("PUT", path, b"1", {"USER_TOKEN": "alice"})
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize("fast_lane", ["true", "false"])
def test_a_defect_ends_the_process_at_once(tmp_path: Path, fast_lane: str) -> None:
    """Nobody is made to wait for a store that is away: what was acknowledged is left on the disk, and the exit code says so."""
    (tmp_path / "config.yml").write_text(f"""\
cache_dir: {tmp_path / "spool"}
listen: {{fast_lane: {fast_lane}}}
aws: {{endpoint: "http://127.0.0.1:1", access_key_id: a, secret_access_key: b}}
s3: {{usage_bucket: usage, error_bucket: error, specimen_bucket: specimen}}
log: {{format: json}}
""")
    log_path = tmp_path / "log"
    with log_path.open("wb") as log:
        command = [sys.executable, "-c", DEFECTIVE, "-p", "0", "-c", str(tmp_path / "config.yml")]
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"NO_PROXY": "127.0.0.1"})

    def told(event: str) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in log_path.read_bytes().split(b"\n")[:-1]]
        return [line for line in lines if line["event"] == event]

    try:
        address = str(until(lambda: told("listening"), "the start")[0]["address"])
        port = int(address.rpartition(":")[2])
        assert put(port, "/error") == 204
        assert put(port, "/usage") == 0
        assert process.wait(WAIT_S) == 3
    finally:
        process.kill()
        process.wait()
    (defect,) = told("defect")
    assert defect["where"] == "journal of usage"
    assert told("drain timed out") == []
    assert [path.read_bytes() for path in (tmp_path / "spool" / "error").glob("*.jsonl")] == [b"1\n"]
