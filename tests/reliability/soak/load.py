"""The clients of a soak: they send what `soak_requests` makes, write down what they were told, and can be held."""

from __future__ import annotations

import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

from reliability.soak.requests import OK, How, Request, burst, heavy, light
from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.gateway_process import Gateway
from testkit.ledger import Fate, Ledger
from testkit.load import connected

LIGHT_CLIENTS = 8
LIGHT_BREATH_S = 0.008
# One in so many requests is the last one of its connection.
_REQUESTS_OF_A_CONNECTION = 40
_CHUNK_BYTES = 50_000
# Stopping, and the only reason for which a request that is good may be refused here.
_STOPPING = 503


class SoakLoad:
    """Sends until the end of the block, unless it is held.

    Args:
        gateway: where to; while it is not there the clients wait for it.
        ledger: where every answer, and every missing one, is written down.
        seed: of everything that is random.
        heavy_breath_s: how long the client of large bodies thinks between two of them.

    Attributes:
        sent: how many requests of each kind came to which end: a status, or 0 for no answer.
        wrong: answers that no request should get.
        defects: what went wrong in a client itself.
    """

    def __init__(self, gateway: Gateway, ledger: Ledger, seed: int, heavy_breath_s: float) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._seed = seed
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._resting = 0
        self.sent: Counter[tuple[str, int]] = Counter()
        self.wrong: list[str] = []
        self.defects: list[BaseException] = []
        self._bursts = LIGHT_CLIENTS
        clients = [(light(number, self._source(number)), LIGHT_BREATH_S) for number in range(LIGHT_CLIENTS)]
        clients.append((heavy(LIGHT_CLIENTS, self._source(LIGHT_CLIENTS)), heavy_breath_s))
        self._threads = [
            threading.Thread(target=self._client, args=(number, *client), daemon=True) for number, client in enumerate(clients)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send within this block; at its end every client has finished what it had begun."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._ending.set()
            self._going.set()
            for thread in self._threads:
                thread.join(90 * TIMEOUT_FACTOR)
        assert not any(thread.is_alive() for thread in self._threads), "a client got no answer and no end of its connection"

    def hold(self) -> None:
        """Have every client stop after the request it is at, without waiting for that."""
        self._going.clear()

    def rest(self) -> None:
        """Return once every client has been answered and has closed its connection."""
        self.hold()
        until(lambda: self._resting == len(self._threads) or self.defects, "the clients to be answered", timeout_s=60)

    def go(self) -> None:
        """Have the clients go on."""
        self._going.set()

    def requests(self) -> int:
        """How many came to an end so far."""
        with self._lock:
            return self.sent.total()

    def refused(self) -> int:
        """How many requests the gateway had no time for."""
        with self._lock:
            return sum(count for (_, status), count in self.sent.items() if status == _STOPPING)

    def burst(self, count: int) -> None:
        """Send so many bodies at the same time, and return when all are answered."""
        self._bursts += 1
        bodies = burst(self._bursts, self._source(self._bursts), count)
        with ThreadPoolExecutor(count) as senders:
            list(senders.map(lambda body: self._close_after(body), bodies))

    def _source(self, client: int) -> random.Random:
        return random.Random(f"{self._seed} {client}")

    def _close_after(self, request: Request) -> None:
        connection = connected(self._gateway, self._ending)
        if connection is not None:
            self._send(connection, request)
            connection.close()

    # --- one client -------------------------------------------------------------------------------------------------

    def _client(self, number: int, requests: Iterator[Request], breath_s: float) -> None:
        connection: http.client.HTTPConnection | None = None
        source = self._source(-number - 1)
        try:
            for request in requests:
                while connection is None or not self._going.is_set():
                    if not self._going.is_set():
                        if connection is not None:
                            connection.close()
                            connection = None
                        self._take_a_rest()
                    if self._ending.is_set():
                        return
                    connection = connection or connected(self._gateway, self._ending)
                is_open = self._send(connection, request)
                if not is_open or source.random() < 1 / _REQUESTS_OF_A_CONNECTION:
                    connection.close()
                    connection = None
                if self._ending.wait(breath_s):
                    return
        except BaseException as error:  # noqa: BLE001 (told by the soak)
            self.defects.append(error)
        finally:
            if connection is not None:
                connection.close()

    def _take_a_rest(self) -> None:
        with self._lock:
            self._resting += 1
        self._going.wait()
        with self._lock:
            self._resting -= 1

    def _send(self, connection: http.client.HTTPConnection, request: Request) -> bool:
        """Send one, write down what came of it, and tell whether the connection can be used again."""
        status, will_close = 0, True
        with suppress(OSError, http.client.HTTPException):
            _put(connection, request)
            if request.how is not How.ABANDONED:
                with connection.getresponse() as response:
                    response.read()
                    status, will_close = response.status, response.will_close
        self._note(request, status)
        return not will_close

    def _note(self, request: Request, status: int) -> None:
        if status == OK:
            fate = Fate.ACKNOWLEDGED
        elif status or request.how is How.ABANDONED or request.expected != OK:
            # What was never sent whole, or is not fit to be taken, must not be there, whether or not that was answered.
            fate = Fate.REFUSED
        else:
            fate = Fate.UNANSWERED
        self._ledger.note(request.stream, request.contents, fate)
        with self._lock:
            self.sent[request.kind, status] += 1
            if status not in (0, request.expected, _STOPPING):
                self.wrong.append(f"{request.kind} was answered with {status}")


def _put(connection: http.client.HTTPConnection, request: Request) -> None:
    headers = {"USER_TOKEN": "alice", **request.headers}
    match request.how:
        case How.WHOLE:
            connection.request(request.method, request.target, request.body, headers)
        case How.CHUNKED:
            headers["Transfer-Encoding"] = "chunked"
            connection.request(request.method, request.target, iter(_pieces(request.body)), headers, encode_chunked=True)
        case How.SPLIT:
            _put_head(connection, request, headers | {"Content-Length": str(len(request.body))})
            connection.send(request.body)
        case How.HEAD_ONLY:
            _put_head(connection, request, headers)
        case How.ABANDONED:
            _put_head(connection, request, headers | {"Content-Length": str(len(request.body))})
            connection.send(request.body[: len(request.body) // 2])


def _put_head(connection: http.client.HTTPConnection, request: Request, headers: dict[str, str]) -> None:
    connection.putrequest(request.method, request.target)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()


def _pieces(body: bytes) -> Sequence[bytes]:
    return [body[start : start + _CHUNK_BYTES] for start in range(0, len(body), _CHUNK_BYTES)]
