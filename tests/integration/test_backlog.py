from __future__ import annotations

import hashlib
import json
from pathlib import Path

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import MakeGateway, settings_for
from testkit.ledger import Fate, Ledger
from testkit.stored import keys

SPECIMENS = 5_000
SEGMENTS = 2_000
LINES_IN_SEGMENT = 5
# 2026-11-21T10:00:00Z
START_NS = 1_795_255_200_000_000_000
MIB = 1 << 20
# The list of what waits, and what is being sent; nothing of what the files hold.
ALLOWANCE = 48 * MIB


def plant_segments(directory: Path, ledger: Ledger) -> None:
    """Write cut segments, a hundred to an hour."""
    directory.mkdir(parents=True)
    for number in range(SEGMENTS):
        lines = [b'{"segment":%d,"line":%d}' % (number, line) for line in range(LINES_IN_SEGMENT)]
        instant = START_NS + number * 36 * 10**9
        (directory / f"{instant}.17.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
        ledger.note("usage", lines, Fate.ACKNOWLEDGED)


def plant_specimens(directory: Path, ledger: Ledger) -> None:
    """Write bodies with their sidecars."""
    directory.mkdir(parents=True)
    for number in range(SPECIMENS):
        body = b"specimen %d " % number * 50
        instant = START_NS + number * 10**9
        sidecar = {
            "id": f"{number:032x}",
            "user": "alice",
            "uri": f"{number}.bin",
            "type": "application/octet-stream",
            "received": instant,
            "size": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        (directory / f"{instant}.17.{number}%2Ebin.meta").write_text(json.dumps(sidecar))
        (directory / f"{instant}.17.{number}%2Ebin.body").write_bytes(body)
        ledger.note("specimen", [body], Fate.ACKNOWLEDGED)


def test_a_backlog_is_delivered_after_the_start(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Thousands of waiting segments and specimens are found at the start and delivered once, oldest first, in little memory."""
    ledger = Ledger()
    gateway = make_gateway(settings_for(buckets, delivery={"parallel_uploads": 16}))
    gateway.start()
    idle = gateway.peak_memory()
    assert gateway.stop() == 0
    (gateway.cache / "usage").rename(gateway.folder / "empty-usage")
    (gateway.cache / "specimen").rename(gateway.folder / "empty-specimen")
    plant_segments(gateway.cache / "usage", ledger)
    plant_specimens(gateway.cache / "specimen", ledger)

    gateway.start()
    assert gateway.events("recovery done")[0]["waiting_files"] == SPECIMENS + SEGMENTS
    assert gateway.put("/error", b'{"received":"meanwhile"}') == 204
    ledger.note("error", [b'{"received":"meanwhile"}'], Fate.ACKNOWLEDGED)
    until(
        lambda: len(gateway.events("object delivered", stream="specimen")) == SPECIMENS, "all specimens to be sent", timeout_s=120
    )
    until(lambda: gateway.left() == [], "the spool to be empty", timeout_s=60)
    taken = gateway.peak_memory() - idle
    assert taken < ALLOWANCE, f"{taken / MIB:.0f} MiB above idle"
    assert gateway.stop() == 0
    ledger.check(buckets)
    # Twenty hours, one batch each.
    assert len(keys(buckets, buckets.usage)) == SEGMENTS * 36 // 3600
