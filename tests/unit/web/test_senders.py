"""Requests as log forwarders make them, with the settings of docs/senders.md and with those that it warns of."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.running import LocalGateway

LINES = [b'{"date":"2026-11-30T12:00:00.000000Z","log":"a"}', b'{"date":"2026-11-30T12:00:01.000000Z","log":"\xe6\x97\xa5"}']
# What each sends between the request line and the body, but for its length. A newline ends the last line of Vector and of
# Fluent Bit, and not that of rsyslog.
SENDERS = {
    "Fluent Bit": ("Host: g:8080", "Content-Type: application/x-ndjson", "Content-Encoding: gzip", "User-Agent: Fluent-Bit"),
    "Vector": (
        "content-type: application/x-ndjson",
        "content-encoding: gzip",
        "user-agent: Vector/0.50.0",
        "accept-encoding: identity",
    ),
    "rsyslog": ("Host: g:8080", "Accept: */*", "Content-Type: application/x-ndjson", "Content-Encoding: gzip"),
}


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LocalGateway]:
    """Run one."""
    made = LocalGateway(tmp_path)
    made.start()
    yield made
    assert made.stop(60) == 0


def sent(gateway: LocalGateway, fields: tuple[str, ...], body: bytes) -> tuple[int, str]:
    """POST a body to /usage with these fields, and give the status and the code of the answer."""
    given = {name: value for name, _, value in (field.partition(": ") for field in fields) if name.lower() != "host"}
    head = [*(f"{name}: {value}" for name, value in given.items()), "Host: g:8080", "USER_TOKEN: web-1"]
    with gateway.wire() as wire:
        text = "\r\n".join(["POST /usage HTTP/1.1", *head, f"Content-Length: {len(body)}", "", ""])
        answer = wire.ask(text.encode() + body)
    return answer.status, "" if answer.status == 204 else str(answer.json()["error"]["code"])


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("is_packed", [True, False])
def test_what_a_forwarder_sends_is_a_report_a_line(gateway: LocalGateway, sender: str, is_packed: bool) -> None:
    """Each record is a report of its own, byte for byte."""
    fields = tuple(field for field in SENDERS[sender] if is_packed or "encoding: gzip" not in field.lower())
    body = b"\n".join(LINES) + b"\n" * (sender != "rsyslog")
    assert sent(gateway, fields, gzip.compress(body) if is_packed else body) == (204, "")
    assert b"\n".join(LINES) in b"".join(path.read_bytes() for path in (gateway.cache / "usage").glob("*.jsonl*"))


@pytest.mark.parametrize(
    ("fields", "body", "answer"),
    [
        (("Content-Type: application/json",), b"".join(LINES), (400, "bad_request")),
        (("Content-Type: application/json",), b"\n".join(LINES), (400, "bad_request")),
        (("Content-Type: application/x-ndjson", "Content-Encoding: snappy"), b"\x00", (415, "unsupported_encoding")),
    ],
    ids=["json_stream", "lines that are not said to be lines", "snappy"],
)
def test_what_does_not_work_says_why(
    gateway: LocalGateway, fields: tuple[str, ...], body: bytes, answer: tuple[int, str]
) -> None:
    """The settings that the page warns of are answered with 4xx, and nothing is kept."""
    assert sent(gateway, fields, body) == answer
    assert gateway.left() == []
