"""A short life of the gateway, the same in every run, which brings about every transition of the spool."""

from __future__ import annotations

import http.client
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from testkit.buckets import Buckets
from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.gateway_process import Gateway, Settings, settings_for
from testkit.ledger import Fate, Ledger, WholeLedger
from testkit.load import Request

MIB = 1 << 20
PART_BYTES = 5 * MIB
SEGMENT_REPORT_LIMIT = 1024
_DEADLINE_S = 30.0


class Died(Exception):
    """The gateway ended in the middle of the scenario."""


def settings(buckets: Buckets) -> Settings:
    """Segments, batches and parts so small that a few requests fill them."""
    return settings_for(
        buckets,
        aggregation={"max_batch_bytes": "4KiB"},
        s3={"part_size": PART_BYTES},
        spool={
            "segment_report_limit": SEGMENT_REPORT_LIMIT,
            "segment_max_bytes": SEGMENT_REPORT_LIMIT,
            "segment_max_age": "50ms",
        },
    )


class Client:
    """Sends the requests of the scenario, each unlike all others, and writes down what it was told.

    Args:
        gateway: where to, started.
        ledger: where every answer, and every missing one, is written down.
        name: stands in all that is sent.
    """

    def __init__(self, gateway: Gateway, ledger: Ledger, name: str) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._name = name
        self._sent = 0

    def small(self, stream: str, size: int = 200) -> Request:
        """A report that shares a segment."""
        report = self._report(size)
        return Request(stream, f"/{stream}", report, (report,))

    def large(self, stream: str, size: int = 6 * SEGMENT_REPORT_LIMIT) -> Request:
        """A report with a file of its own, large enough for a batch."""
        return self.small(stream, size)

    def many(self, stream: str) -> Request:
        """Several reports in one body, nearly enough to have the segment cut."""
        lines = tuple(self._report(SEGMENT_REPORT_LIMIT // 3 - 60) for _ in range(3))
        return Request(stream, f"/{stream}", b"\n".join(lines), lines, "application/x-ndjson")

    def specimen(self, size: int) -> Request:
        """A file."""
        self._sent += 1
        body = f"{self._name}-{self._sent} ".encode() * (size // 8)
        path = f"/specimen?uri=file:///{self._name}-{self._sent}.bin"
        return Request("specimen", path, body[:size], (body[:size],), "application/octet-stream")

    def send(self, requests: Sequence[Request]) -> None:
        """Send some at the same time, each on a connection of its own; `Died` where one has got no answer."""
        with ExitStack() as stack:
            connections = [self._connected(stack) for _ in requests]
            unheard = [not self._put(connection, request) for connection, request in zip(connections, requests, strict=True)]
            unheard += [not self._hear(connection, request) for connection, request in zip(connections, requests, strict=True)]
        if any(unheard):
            raise Died

    def _report(self, size: int) -> bytes:
        self._sent += 1
        # Nothing that a compressor could make small, so that an archive is written in more than one piece.
        text = random.Random(self._sent).randbytes(size // 2).hex()
        return b'{"id":"%s-%d","text":"%s"}' % (self._name.encode(), self._sent, text.encode())

    def _connected(self, stack: ExitStack) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.port, timeout=_DEADLINE_S * TIMEOUT_FACTOR)
        stack.enter_context(closing(connection))
        try:
            connection.connect()
        except OSError as error:
            # Nothing was sent, so nothing is to be written down.
            raise Died from error
        connection.auto_open = False
        return connection

    @staticmethod
    def _put(connection: http.client.HTTPConnection, request: Request) -> bool:
        try:
            connection.request("PUT", request.path, request.body, {"USER_TOKEN": "alice", "Content-Type": request.content_type})
        except OSError:
            return False
        return True

    def _hear(self, connection: http.client.HTTPConnection, request: Request) -> bool:
        try:
            with connection.getresponse() as response:
                response.read()
        except (OSError, http.client.HTTPException):
            # Also where the request could not be sent whole, which is no reason for the gateway not to have it.
            self._ledger.note(request.stream, request.contents, Fate.UNANSWERED)
            return False
        self._ledger.note(request.stream, request.contents, Fate.ACKNOWLEDGED if response.status == 204 else Fate.REFUSED)
        return True


class Scenario:
    """The life of a gateway that begins with an empty folder; see `attempt.Life`."""

    def settings(self, buckets: Buckets) -> Settings:
        """See `settings`."""
        return settings(buckets)

    def prepare(self, folder: Path, buckets: Buckets) -> Ledger:
        """Nothing is there, and nothing was sent."""
        return FullLedger()

    def clear(self, folder: Path) -> None:
        """There are only files."""

    def live(self, gateway: Gateway, ledger: Ledger) -> None:
        """Send what brings about every transition.

        What is sent first is batched by size and by time, and delivered; what is sent last is left to the drain.
        """
        start(gateway)
        client = Client(gateway, ledger, "life")
        for requests in first(client):
            client.send(requests)
        until(lambda: not gateway.is_running or not gateway.left(), "what was sent first to be delivered")
        for requests in last(client):
            client.send(requests)
        stop(gateway)


def start(gateway: Gateway) -> None:
    """Start a gateway and return once it answers; `Died` where it ends before."""
    gateway.launch()
    until(lambda: gateway.events("listening") or not gateway.is_running, "the gateway to listen")
    if not gateway.events("listening"):
        raise Died
    gateway.port = int(str(gateway.events("listening")[0]["address"]).rpartition(":")[2])
    try:
        # It says that it listens a moment before it minds signals.
        gateway.get("/health")
    except (OSError, http.client.HTTPException) as error:
        raise Died from error


def stop(gateway: Gateway) -> None:
    """Have a gateway drain; `Died` where it does not end well."""
    if not gateway.is_running or gateway.stop() != 0:
        raise Died


def drain(gateway: Gateway) -> None:
    """Start a gateway and have it drain at once; `Died` where it does not end well."""
    start(gateway)
    stop(gateway)


def first(client: Client) -> Iterator[Sequence[Request]]:
    """What is sent first, some at the same time."""
    yield [client.small("usage")]
    yield [client.small("error")]
    yield [client.many("usage"), client.small("usage"), client.small("usage")]
    yield [client.large("usage", 300_000)]
    yield [client.specimen(2000)]
    yield [client.specimen(PART_BYTES + 300_000)]
    yield [client.small("usage"), client.small("error"), client.many("error")]


def last(client: Client) -> Iterator[Sequence[Request]]:
    """What is sent last."""
    yield [client.large("error"), client.specimen(3000)]
    yield [client.small("usage"), client.small("error")]


class FullLedger(WholeLedger):
    """A ledger that can be gone on with from a moment."""

    def copy(self) -> FullLedger:
        """Another with the same in it, to be gone on with."""
        other = FullLedger()
        for stream, fates in self._fates.items():
            other._fates[stream] = dict(fates)
        other._texts = dict(self._texts)
        return other
