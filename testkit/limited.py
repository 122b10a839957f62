"""A gateway whose limits a test can pass quickly, what it has kept, and what it refuses."""

from __future__ import annotations

from collections import Counter
from typing import Any

from testkit.deadlines import until
from testkit.gateway_process import Answer
from testkit.running import LocalGateway

SEGMENT_LIMIT = 4096
REPORT_LIMIT = 1 << 20
SPECIMEN_LIMIT = 2 << 20


def limited(*, fast_lane: bool = True, **sections: Any) -> dict[str, Any]:
    """Settings with limits so low that a test can pass them quickly."""
    return {
        "listen": {"fast_lane": fast_lane},
        "limits": {
            "report_bytes": REPORT_LIMIT,
            "specimen_bytes": SPECIMEN_LIMIT,
            "body_timeout": "5s",
            **sections.pop("limits", {}),
        },
        "spool": {"segment_report_limit": SEGMENT_LIMIT, **sections.pop("spool", {})},
        **sections,
    }


class Gained:
    """What a gateway has kept since a moment."""

    def __init__(self, gateway: LocalGateway) -> None:
        self._gateway = gateway
        self._before = {stream: Counter(gateway.kept(stream)) for stream in ("usage", "error")}

    def lines(self, stream: str = "usage") -> list[bytes]:
        """The new lines of a report stream."""
        return list((Counter(self._gateway.kept(stream)) - self._before[stream]).elements())


def refused(answer: Answer, status: int, code: str) -> str:
    """Hold an answer to the one form of errors, and give its message."""
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert list(body) == ["error"]
    assert sorted(body["error"]) == ["code", "message"]
    assert body["error"]["code"] == code
    message: str = body["error"]["message"]
    assert message
    return message


def delivered(gateway: LocalGateway, body: bytes) -> tuple[str, dict[str, str]]:
    """The key and the metadata of the specimen with these bytes, waited for."""
    root = gateway.objects / "specimen"

    def found() -> list[str]:
        files = (path for path in root.rglob("*") if path.is_file())
        return [str(path.relative_to(root)) for path in files if path.read_bytes() == body]

    key = until(found, "the specimen to be delivered")[0]
    return key, gateway.metadata_of(key)
