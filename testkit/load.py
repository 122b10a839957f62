"""Clients that keep sending reports and specimens, each on a connection of its own, and write down what they were told."""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testkit.deadlines import TIMEOUT_FACTOR
from testkit.gateway_process import Gateway
from testkit.ledger import Fate, Ledger

CLIENTS = 32
KINDS = 5
# Above the limit of segments that the tests under load set, so that such a report has a file of its own.
SEGMENT_REPORT_LIMIT = 4096
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Request:
    """One request, and what is to be found in the store for it."""

    stream: str
    path: str
    body: bytes
    contents: tuple[bytes, ...]
    content_type: str = "application/json"


def requests_of(client: int) -> Iterator[Request]:
    """Give requests of every kind without end, unlike those of every other client, each client beginning with another kind."""
    yield from itertools.islice(_all_requests_of(client), client % KINDS, None)


def _all_requests_of(client: int) -> Iterator[Request]:
    for number in itertools.count():
        name = f"{client}-{number}"
        small, other = _report(name, 700), _report(f"{name}-e", 50)
        yield Request("usage", "/usage", small, (small,))
        yield Request("error", "/error", other, (other,))
        lines = tuple(_report(f"{name}-{line}", 100) for line in range(5))
        yield Request("usage", "/usage", b"\n".join(lines), lines, "application/x-ndjson")
        large = _report(f"{name}-l", 2 * SEGMENT_REPORT_LIMIT)
        yield Request("usage", "/usage", large, (large,))
        if number % 2 == 0:
            specimen = f"specimen {name} ".encode() * 300
            yield Request("specimen", f"/specimen?uri=file:///{name}.bin", specimen, (specimen,), "application/octet-stream")


def _report(name: str, size: int) -> bytes:
    return b'{"id":"%s","text":"%s"}' % (name.encode(), b"x" * size)


class Load:
    """Sends until stopped.

    Args:
        gateway: where to; while it is not there the clients wait for it.
        ledger: where every answer, and every missing one, is written down.
        clients: how many send at the same time.
        breath_s: how long each of them thinks between an answer and its next request.
        first: the number of the first client; no two clients of a test may have the same.
        stagger_s: how long after the one before it each of them begins, so that they do not keep step.
    """

    def __init__(
        self,
        gateway: Gateway,
        ledger: Ledger,
        *,
        clients: int = CLIENTS,
        breath_s: float = 0.0,
        stagger_s: float = 0.0,
        first: int = 0,
    ) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._breath_s = breath_s
        self._stagger_s = stagger_s
        self._first = first
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)]
        self.answers = [0] * clients
        self.defects: list[BaseException] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send within this block; at its end every client has finished what it had begun."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join(60 * TIMEOUT_FACTOR)
        assert not any(thread.is_alive() for thread in self._threads), "a client got no answer and no end of its connection"
        assert self.defects == []

    def _client(self, number: int) -> None:
        connection: http.client.HTTPConnection | None = None
        self._stopping.wait(number * self._stagger_s)
        try:
            for request in requests_of(self._first + number):
                while connection is None and not self._stopping.is_set():
                    connection = connected(self._gateway, self._stopping)
                if connection is None or self._stopping.is_set():
                    return
                if not self._send(connection, request, number):
                    connection.close()
                    connection = None
                self._stopping.wait(self._breath_s)
        except BaseException as error:  # noqa: BLE001 (told by the thread of the test)
            self.defects.append(error)
        finally:
            if connection is not None:
                connection.close()

    def _send(self, connection: http.client.HTTPConnection, request: Request, number: int) -> bool:
        """Send one, write down what came of it, and tell whether the connection can be used again."""
        headers = {"USER_TOKEN": f"client-{number}", "Content-Type": request.content_type}
        try:
            connection.request("PUT", request.path, request.body, headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            self._ledger.note(request.stream, request.contents, Fate.UNANSWERED)
            return False
        self._ledger.statuses[response.status] += 1
        self._ledger.note(request.stream, request.contents, Fate.ACKNOWLEDGED if response.status == 204 else Fate.REFUSED)
        self.answers[number] += 1
        return not response.will_close


def connected(gateway: Gateway, stopping: threading.Event) -> http.client.HTTPConnection | None:
    """A connection; None, after a breath that ends when it is time to stop, while the gateway is not there."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30 * TIMEOUT_FACTOR)
    try:
        connection.connect()
    except OSError:
        # Nothing was sent, so nothing is to be written down.
        connection.close()
        stopping.wait(_LOOK_EVERY_S)
        return None
    # From now on a lost connection is an unanswered request, and not the begin of another connection.
    connection.auto_open = False
    return connection
