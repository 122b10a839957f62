"""A spool as gateways left it whose layout was an earlier format: something in every state, under the names of that time.

Written by hand and not by the code of today, which would follow each of its changes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from testkit.spool import plant

# 2026-11-21T13:59:00Z, and the process that gave the names.
FIRST_NS, PID = 1_795_269_540_000_000_000, 4711
HOUR, HOST = "2026112113", "old-host"
PART_BYTES = 5 << 20


@dataclass(frozen=True)
class OldSpool:
    """What is there, and what has to come of it.

    Attributes:
        files: paths below `cache_dir` and their bytes; None for an empty directory.
        acknowledged: what was answered with 204, of each stream: lines, and files.
        in_parts: the path of the file that was being sent in parts; the note of the upload is still to be written.
    """

    files: Mapping[str, bytes | None]
    acknowledged: Mapping[str, tuple[bytes, ...]]
    in_parts: str

    def put(self, spool: Path) -> None:
        """Write all of it into a folder."""
        plant(spool, self.files)


def spool_of_format(number: int) -> OldSpool:
    """One of everything that there was in a format, and every line and file unlike every other."""
    named = partial(_name, number)
    usage = {name: _line(name) for name in ("open", "open too", "cut", "claimed", "sealed", "sealed, sources left")}
    whole, claimed_whole, error = _line("whole", 20_000), _line("claimed whole", 20_000), _line("error")
    small, large = b"a small file", b"a file that was being sent in parts " * (PART_BYTES // 32)
    claimed, emptied, sealed, half_sealed, unpacked = (f"{HOUR}.{HOST}.{at:032x}" for at in range(1, 6))
    body, lone, in_parts = (f"{named(at)}.file%3A%2F%2F%2Ftmp%2Fa%2Ebin" for at in (20, 21, 22))
    files = {
        "FORMAT": b"%d\n" % number,
        ".lock": b"",
        f"tmp/{named(30)}": b"half a repo",
        "tmp/FORMAT": b"",
        f"quarantine/usage.{named(31)}.jsonl.open.rest": b'{"torn',
        # Reports.
        f"usage/{named(10)}.jsonl.open": usage["open"] + usage["open too"],
        f"usage/{named(1)}.jsonl": usage["cut"],
        f"usage/{named(2)}.machine%2D1.json": whole,
        f"usage/aggregation/{claimed}/{named(3)}.jsonl": usage["claimed"],
        f"usage/aggregation/{claimed}/{named(4)}.machine%2D1.json": claimed_whole,
        f"usage/aggregation/{emptied}": None,
        f"usage/uploading/{sealed}.4.jsonl.gz": gzip.compress(usage["sealed"], mtime=0),
        f"usage/uploading/{half_sealed}.1.jsonl.gz": gzip.compress(usage["sealed, sources left"], mtime=0),
        f"usage/aggregation/{half_sealed}/{named(5)}.jsonl": usage["sealed, sources left"],
        f"error/{named(6)}.jsonl.open": error,
        "error/aggregation": None,
        "error/uploading": None,
        # Files.
        f"specimen/{body}.meta": _sidecar(20, small),
        f"specimen/{body}.body": small,
        f"specimen/{lone}.meta": _sidecar(21, b"never acknowledged"),
        f"specimen/{in_parts}.meta": _sidecar(22, large),
        f"specimen/{in_parts}.body": large,
    }
    if number > 1:
        usage["unpacked"] = _line("unpacked")
        files[f"usage/uploading/{unpacked}.1.jsonl"] = usage["unpacked"]
    reports = tuple(line.rstrip(b"\n") for line in (*usage.values(), whole, claimed_whole))
    return OldSpool(
        files,
        {"usage": reports, "error": (error.rstrip(b"\n"),), "specimen": (small, large)},
        f"specimen/{in_parts}.body",
    )


def _name(number: int, at: int) -> str:
    """The beginning of a name: in format 1 one number says the order and the time, later there are two."""
    return f"{FIRST_NS + at}.{PID}" if number == 1 else f"{FIRST_NS + at}.{FIRST_NS + at}.{PID}"


def _line(said: str, size: int = 0) -> bytes:
    return json.dumps({"said": said, "text": "x" * size}).encode() + b"\n"


def _sidecar(number: int, body: bytes) -> bytes:
    fields = {
        "id": f"{number:032x}",
        "user": "machine-1",
        "uri": "file:///tmp/a.bin",
        "type": "application/octet-stream",
        "received": FIRST_NS + number,
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(fields).encode() + b"\n"
