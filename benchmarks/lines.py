"""Seeded reports that look like what machines send: nested, mixed, compressible about as real ones are."""

from __future__ import annotations

import json
import random
from pathlib import Path

from benchmarks.settings import MIB

SEED = 6
# gzip looks back 32 KiB, so that it cannot tell lines that come again after 64 MiB from new ones.
BLOCK_BYTES = 64 * MIB
KIB = 1 << 10
_WORDS = (
    *("scan", "upload", "decode", "preview", "export", "merge", "rotate"),
    *("crop", "archive", "verify", "index", "open", "save", "close"),
    *("print", "share", "thumbnail", "histogram", "exposure", "white-balance", "firmware"),
    *("sensor", "battery", "lens", "shutter", "gallery", "timeline", "cache"),
)


def report(chance: random.Random) -> dict[str, object]:
    """One usage report, of about 1 KB as a line."""
    instant = 1_795_269_540_000 + chance.randrange(86_400_000)
    return {
        "session": f"{chance.getrandbits(128):032x}",
        "sent_at": instant,
        "app": {"name": "lightfile", "version": f"6.{chance.randrange(9)}.{chance.randrange(30)}", "channel": "stable"},
        "os": {"name": chance.choice(("windows", "macos", "linux")), "build": chance.randrange(19_000, 27_000)},
        "locale": chance.choice(("ja-JP", "en-US", "de-DE", "fr-FR")),
        "memory_mb": chance.choice((4096, 8192, 16_384, 32_768)),
        "events": [
            {
                "action": chance.choice(_WORDS),
                "target": f"/{chance.choice(_WORDS)}/{chance.choice(_WORDS)}/{chance.randrange(100_000)}",
                "at": instant - chance.randrange(600_000),
                "took_ms": round(chance.expovariate(0.02), 3),
                "ok": chance.random() > 0.03,
            }
            for _ in range(chance.randrange(5, 9))
        ],
    }


def line(chance: random.Random) -> bytes:
    """One report as the line that stands in a segment."""
    return json.dumps(report(chance), separators=(",", ":")).encode("ascii") + b"\n"


def lines(size: int, seed: int = SEED) -> bytes:
    """Whole lines of reports, `size` bytes of them at the least."""
    chance = random.Random(seed)
    made: list[bytes] = []
    total = 0
    while total < size:
        made.append(line(chance))
        total += len(made[-1])
    return b"".join(made)


def body(size: int = KIB) -> bytes:
    """One report of exactly this size in bytes, which is whole KiB."""
    events = [{"action": "scan", "took_ms": 12.5, "ok": True}] * (size * 11 // KIB)
    filled = report(random.Random(SEED)) | {"events": events, "note": ""}
    bare = len(json.dumps(filled, separators=(",", ":")))
    filled["note"] = "n" * (size - bare)
    made = json.dumps(filled, separators=(",", ":")).encode("ascii")
    assert len(made) == size
    return made


def write_segments(directory: Path, size: int) -> list[Path]:
    """Files of lines, `size` bytes together and 64 MiB each, as a claim would find them."""
    block = lines(min(size, BLOCK_BYTES))
    count = max(1, round(size / len(block)))
    paths = [directory / f"{number:04d}.jsonl" for number in range(count)]
    for path in paths:
        path.write_bytes(block)
    return paths
