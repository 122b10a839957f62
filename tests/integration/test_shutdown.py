from __future__ import annotations

import hashlib
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from testkit.buckets import Buckets
from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.gateway_process import Gateway, MakeGateway, settings_for
from testkit.ledger import Fate, Ledger
from testkit.load import CLIENTS, SEGMENT_REPORT_LIMIT, Load
from testkit.stored import files

PIECES = 20
# Longer than the second or two that a server may give its connections to end by themselves.
DELAY_MS = 2500


def test_shutdown_under_load_loses_nothing(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """SIGTERM under load: every request is answered, what was acknowledged is stored once, no file is left, and it exits 0."""
    ledger = Ledger()
    gateway = make_gateway(
        settings_for(buckets, spool={"segment_report_limit": SEGMENT_REPORT_LIMIT}), LIGHTFILE6_RESPONSE_DELAY_MS=str(DELAY_MS)
    )
    gateway.start()
    # They begin all over one delay, so that the signal finds requests everywhere on their way.
    load = Load(gateway, ledger, stagger_s=DELAY_MS / 1000 / CLIENTS)
    with load.running():
        # Every client is connected, so that from now on nothing can be left in the queue of the listening socket.
        until(lambda: min(load.answers) >= 1, "each client to have been answered")
        gateway.signal(signal.SIGTERM)
        code = gateway.wait()
    assert code == 0, gateway.said()
    assert ledger.requests(Fate.UNANSWERED) == 0
    assert set(ledger.statuses) <= {204, 503}
    assert gateway.left() == []
    ledger.check(buckets)


def head(path: str, length: int) -> bytes:
    """The head of a PUT."""
    return f"PUT {path} HTTP/1.1\r\nHost: gateway\r\nUSER_TOKEN: alice\r\nContent-Length: {length}\r\n\r\n".encode()


class SlowUpload:
    """An upload that stops in the middle of its body and goes on, piece by piece, when it is told to."""

    def __init__(self, gateway: Gateway, path: str, body: bytes) -> None:
        self._rest = body[len(body) // 2 :]
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=30 * TIMEOUT_FACTOR)
        self._socket.sendall(head(path, len(body)) + body[: len(body) // 2])

    def abandon(self) -> None:
        """Go away."""
        self._socket.close()

    def finish(self) -> bytes:
        """Send the rest slowly, and return the answer up to the end of the connection."""
        with self._socket:
            size = -(-len(self._rest) // PIECES)
            for start in range(0, len(self._rest), size):
                self._socket.sendall(self._rest[start : start + size])
                # The slowness of a client, which is what is tested.
                time.sleep(0.02)
            answer = b""
            while chunk := self._socket.recv(65536):
                answer += chunk
            return answer


def test_uploads_under_way_are_received(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Uploads in the middle of their bodies at SIGTERM are received to the end, acknowledged and delivered."""
    gateway = make_gateway(settings_for(buckets))
    gateway.start()
    specimen = b"0123456789abcdef" * 320_000
    report = b'{"text":"' + b"y" * 5_000_000 + b'"}'
    uploads = [SlowUpload(gateway, "/specimen?uri=slow.bin", specimen), SlowUpload(gateway, "/usage", report)]
    until(lambda: len(gateway.left()) == 2, "both uploads to reach the disk")
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.events("stopping begun"), "the gateway to begin to stop")
    with ThreadPoolExecutor() as clients:
        answers = list(clients.map(SlowUpload.finish, uploads))
    assert [answer.split(b" ")[1] for answer in answers] == [b"204", b"204"]
    assert all(b"connection: close" in answer.lower() for answer in answers)
    assert gateway.wait() == 0
    assert [hashlib.sha256(one.body).digest() for one in files(buckets, buckets.specimen)] == [hashlib.sha256(specimen).digest()]
    assert buckets.lines(buckets.usage) == [report]
    assert gateway.left() == []


def test_signals_that_come_together_are_one(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """SIGTERM and SIGINT at the same moment, as a terminal or a supervisor may send them, still drain."""
    gateway = make_gateway(settings_for(buckets, aggregation={"usage_interval": "1h"}))
    gateway.start()
    assert gateway.put("/usage", b'{"n":1}') == 204
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        gateway.signal(number)
    assert gateway.wait() == 0
    assert buckets.lines(buckets.usage) == [b'{"n":1}']


def ended_by(gateway: Gateway, number: signal.Signals) -> bool:
    """Send one more signal, and tell whether those before it were enough."""
    gateway.signal(number)
    return not gateway.is_running


def test_a_second_signal_ends_at_once(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A second signal, a second later, ends it at once, and what was acknowledged is delivered after the next start."""
    gateway = make_gateway(settings_for(buckets, aggregation={"usage_interval": "1h"}))
    gateway.start()
    assert gateway.put("/usage", b'{"n":1}') == 204
    slow = SlowUpload(gateway, "/specimen?uri=slow.bin", b"z" * 2_000_000)
    until(lambda: len(gateway.left()) == 2, "the report and the begun upload to be on the disk")
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.events("stopping begun"), "the gateway to begin to stop")
    # Signals that come together are taken for one.
    until(lambda: ended_by(gateway, signal.SIGTERM), "the end", timeout_s=15)
    assert gateway.wait() == 3
    slow.abandon()
    gateway.start()
    assert gateway.stop() == 0
    assert buckets.lines(buckets.usage) == [b'{"n":1}']
    assert files(buckets, buckets.specimen) == []
    assert gateway.left() == []
