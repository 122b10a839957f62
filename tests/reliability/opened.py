"""Reads reports out of their envelopes, which say when each was received."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from testkit import stored
from testkit.buckets import Buckets
from testkit.ledger import REPORTS, WholeLedger, digest

_ENVELOPED = re.compile(rb'\{"user":"(?:[^"\\]|\\.)*","received_at":"(?P<received>[^"]+)","report":(?P<report>.*)\}')


@dataclass(frozen=True)
class Delivered:
    """A report as it was delivered.

    Attributes:
        key: of the object it is in.
        received: the instant of its commit, in ISO 8601; empty if it has no envelope.
        report: as it was sent.
    """

    key: str
    received: str
    report: bytes


def opened(line: bytes) -> tuple[str, bytes]:
    """The instant of a line's commit, and the report in it; the line itself if it is in no envelope."""
    found = _ENVELOPED.fullmatch(line)
    return (found["received"].decode(), found["report"]) if found else ("", line)


def reports(buckets: Buckets, bucket: str) -> Iterator[Delivered]:
    """Every report that was delivered to a bucket."""
    for batch in stored.files(buckets, bucket):
        for line in batch.lines():
            yield Delivered(batch.key, *opened(line))


class OpenedLedger(WholeLedger):
    """A ledger of reports that are delivered in envelopes or bare, and of specimens however they were sent."""

    def _held(self, buckets: Buckets, stream: str) -> list[str]:
        if stream in REPORTS:
            return [digest(found.report) for found in reports(buckets, getattr(buckets, stream))]
        return super()._held(buckets, stream)
