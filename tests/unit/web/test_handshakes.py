"""Handshakes that fail are reported once for each kind, and so is their end."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry.log import Log
from gateway.web.handshakes import QUIET_S, Handshakes


class Bench:
    """Handshakes with a log in a file, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1000.0
        self._file = folder / "log"
        self._log = Log(format="json", fd=os.open(self._file, os.O_WRONLY | os.O_CREAT)).start()
        self.handshakes = Handshakes(self._log, lambda: self.now_s)

    def lines(self) -> list[dict[str, Any]]:
        """All that was logged; nothing can be after this."""
        assert self._log.close()
        return [json.loads(line) for line in self._file.read_bytes().splitlines()]


def error(reason: str) -> ssl.SSLError:
    """What OpenSSL raises for this reason."""
    made = ssl.SSLError(1, f"[SSL: {reason}] it failed")
    made.reason = reason
    return made


def test_each_kind_is_told_once_a_minute(tmp_path: Path) -> None:
    """Many failures of two kinds in a minute are two lines, and the next of a kind tells how many there were."""
    bench = Bench(tmp_path)
    for _ in range(100):
        bench.handshakes.failed(error("HTTP_REQUEST"))
        bench.handshakes.failed(error("NO_SHARED_CIPHER"))
    bench.now_s += 61.0
    bench.handshakes.failed(error("HTTP_REQUEST"))
    first, second, third = bench.lines()
    assert [line["kind"] for line in (first, second, third)] == ["http_request", "no_shared_cipher", "http_request"]
    assert {line["event"] for line in (first, second, third)} == {"TLS handshake failed"}
    assert "https://" in first["reason"]
    assert "NO_SHARED_CIPHER" in second["reason"]
    assert third["count"] == 201


@pytest.mark.parametrize(("waited_s", "ends"), [(QUIET_S - 1.0, False), (QUIET_S, True)])
def test_the_end_is_told_after_a_quiet_minute(waited_s: float, ends: bool, tmp_path: Path) -> None:
    """Handshakes of others do not end what fails; once none has failed for a minute, the next that succeeds does."""
    bench = Bench(tmp_path)
    bench.handshakes.succeeded()
    bench.handshakes.failed(error("HTTP_REQUEST"))
    bench.now_s += waited_s
    for _ in range(3):
        bench.handshakes.succeeded()
    events = [line["event"] for line in bench.lines()]
    assert events == ["TLS handshake failed", *(["TLS handshakes recovered"] if ends else [])]
