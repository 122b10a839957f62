from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from testkit.buckets import Buckets
from testkit.deadlines import since, until
from testkit.gateway_process import PROGRAM, Gateway, MakeGateway
from testkit.ledger import Fate, Ledger
from testkit.load import CLIENTS, Load
from testkit.stored import files
from testkit.worker_log import gone, kill_worker, replaced, with_workers, workers, writers_of

DELAY_MS = 1000
SEALED_LATE = {"usage_interval": "1h", "error_interval": "1h"}


# --- stop --------------------------------------------------------------------------------------------------------


def _to_the_first(gateway: Gateway, number: signal.Signals) -> None:
    gateway.signal(number)


def _to_all(gateway: Gateway, number: signal.Signals) -> None:
    os.killpg(gateway._running().pid, number)


@pytest.mark.parametrize("send", [_to_the_first, _to_all])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_loses_nothing(
    buckets: Buckets, make_gateway: MakeGateway, send: Callable[[Gateway, signal.Signals], None], number: signal.Signals
) -> None:
    """A signal to the first process, or to all: every request is answered, and all that was taken is delivered once."""
    ledger = Ledger()
    gateway = make_gateway(with_workers(2, buckets), LIGHTFILE6_RESPONSE_DELAY_MS=str(DELAY_MS))
    gateway.start()
    started = list(workers(gateway).values())
    load = Load(gateway, ledger, stagger_s=DELAY_MS / 1000 / CLIENTS)
    with load.running():
        # Every client is connected, so that from now on nothing can be left in the queue of a listening socket.
        until(lambda: min(load.answers) >= 1, "each client to have been answered")
        send(gateway, number)
        code = gateway.wait()
    assert code == 0, gateway.said()
    assert ledger.requests(Fate.UNANSWERED) == 0
    assert set(ledger.statuses) <= {204, 503}
    assert gateway.left() == []
    assert gateway.events("worker died") == []
    gone(started)
    ledger.check(buckets)


class Upload:
    """An upload of which the second half is sent when it is told to."""

    def __init__(self, gateway: Gateway, uri: str, body: bytes) -> None:
        self._rest = body[len(body) // 2 :]
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=60)
        fields = f"Host: gateway\r\nUSER_TOKEN: alice\r\nContent-Length: {len(body)}"
        self._socket.sendall(f"PUT /specimen?uri={uri} HTTP/1.1\r\n{fields}\r\n\r\n".encode() + body[: len(body) // 2])

    def abandon(self) -> None:
        """Go away."""
        self._socket.close()

    def finish(self) -> bytes:
        """Send the rest and return what comes until the connection ends."""
        with self._socket:
            self._socket.sendall(self._rest)
            answer = b""
            while chunk := self._socket.recv(65536):
                answer += chunk
        return answer


def _uploads(gateway: Gateway, count: int = 16) -> list[Upload]:
    """So many under way that every worker has some of them."""
    made = [Upload(gateway, f"slow-{number}.bin", b"%d" % (number % 10) * 2_000_000) for number in range(count)]
    until(lambda: len(list((gateway.cache / "tmp").iterdir())) == count, "the uploads to reach the disk")
    return made


def test_one_that_was_replaced_has_the_time_of_the_others(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """At a stop a worker that took the place of a dead one is waited for as any other while its requests are under way."""
    gateway = make_gateway(with_workers(2, buckets, shutdown={"request_timeout": "30s", "drain_timeout": "5s"}))
    gateway.start()
    for worker in (1, 2):
        until(replaced(gateway, kill_worker(gateway, worker)), "another worker")
    uploads = _uploads(gateway)
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.events("stopping begun"), "the stop to begin")
    # The slowness of clients, beyond the time that is for the deliveries alone.
    time.sleep(7)
    with ThreadPoolExecutor(len(uploads)) as clients:
        answers = list(clients.map(Upload.finish, uploads))
    assert [answer.split(b" ")[1] for answer in answers] == [b"204"] * len(uploads)
    assert gateway.wait() == 0
    assert gateway.events("drain timed out") == []
    assert len(files(buckets, buckets.specimen)) == len(uploads)


def test_a_worker_that_is_being_replaced_does_not_hold_up_the_stop(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A signal at any moment of a replacement: it stops at once, and delivers all."""
    gateway = make_gateway(with_workers(2, buckets, aggregation=SEALED_LATE))
    for number in range(3):
        gateway.start()
        assert gateway.put("/usage", b'{"n":%d}' % number) == 204
        pid = kill_worker(gateway, 1)
        if number:
            until(lambda pid=pid: [line for line in gateway.events("worker recovered") if line["pid"] == pid], "recovery")  # type: ignore[misc]
        # Into the pause, the start of the process, and its imports.
        time.sleep((0, 0.1, 0.3)[number])
        begun = time.monotonic()
        assert gateway.stop() == 0
        assert since(begun) < 9
    assert sorted(buckets.lines(buckets.usage)) == [b'{"n":%d}' % number for number in range(3)]


def test_a_second_signal_ends_all_at_once(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A second signal, a second later, ends all processes at once, also with uploads under way, and the next start succeeds."""
    gateway = make_gateway(with_workers(2, buckets, aggregation=SEALED_LATE))
    gateway.start()
    left = list(workers(gateway).values())
    assert gateway.put("/usage", b'{"n":1}') == 204
    uploads = _uploads(gateway)
    gateway.signal(signal.SIGTERM)
    until(lambda: gateway.events("stopping begun"), "the stop to begin")
    # Signals that come together are taken for one.
    until(lambda: _ended_by(gateway, signal.SIGTERM), "the end", timeout_s=15)
    assert gateway.wait() == 3
    gone(left)
    gateway.start()
    assert gateway.stop() == 0
    assert buckets.lines(buckets.usage) == [b'{"n":1}']
    assert gateway.left() == []
    for upload in uploads:
        upload.abandon()


def _ended_by(gateway: Gateway, number: signal.Signals) -> bool:
    gateway.signal(number)
    return not gateway.is_running


# --- start -------------------------------------------------------------------------------------------------------


def _failed_start(gateway: Gateway, port: int = 0) -> str:
    """Wait for the end of a start in vain: exit 1 and one line that says why, which is returned."""
    if not gateway.is_running:
        gateway.launch(port)
    assert gateway.wait() == 1, gateway.said()
    (complaint,) = [line for line in gateway.said().splitlines() if not line.startswith("{")]
    assert complaint.startswith(f"{PROGRAM}: ")
    return complaint


def test_a_worker_that_does_not_start(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A worker that dies before it accepts requests is exit 1 and a line that says so, and no process is left."""
    gateway = make_gateway(with_workers(3, buckets))
    gateway.launch()
    first = psutil.Process(gateway._running().pid)
    # It takes them much longer to start than it takes to look.
    started = until(lambda: first.children() if len(first.children()) == 3 else [], "the workers to be started")
    started[1].kill()
    assert "worker" in _failed_start(gateway)
    gone([one.pid for one in started])
    assert gateway.events("listening") == []
    gateway.start()
    assert gateway.stop() == 0


def test_a_port_that_is_taken(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A port that something else listens at is exit 1 and one line that names it, also where that is a gateway with workers."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        complaint = _failed_start(make_gateway(with_workers(2, buckets)), port)
        assert f"port {port}" in complaint
        assert "in use" in complaint
    first, second = make_gateway(with_workers(2, buckets)), make_gateway(with_workers(2, buckets), folder="other")
    first.start()
    complaint = _failed_start(second, first.port)
    assert f"port {first.port}" in complaint
    assert "in use" in complaint
    assert [first.put("/usage", b'{"n":%d}' % number) for number in range(20)] == [204] * 20
    assert first.stop() == 0
    assert len(buckets.lines(buckets.usage)) == 20


def test_one_gateway_to_a_spool(buckets: Buckets, make_gateway: MakeGateway, tmp_path: Path) -> None:
    """A second gateway on one spool refuses at once, says which process has it, and does the first no harm."""
    first, second = make_gateway(with_workers(2, buckets, aggregation=SEALED_LATE)), make_gateway(with_workers(2, buckets))
    first.start()
    assert first.put("/usage", b'{"n":1}') == 204
    begun = time.monotonic()
    complaint = _failed_start(second)
    assert since(begun) < 9
    assert "in use by another gateway" in complaint
    assert str(first.events("gateway starting")[0]["pid"]) in complaint
    assert len(writers_of(first, "usage")) == 1
    assert first.stop() == 0
    assert buckets.lines(buckets.usage) == [b'{"n":1}']
