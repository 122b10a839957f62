from __future__ import annotations

import gzip
import json
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testkit.buckets import Buckets
from testkit.certificates import CERTIFICATE, KEY
from testkit.deadlines import until
from testkit.gateway_process import Gateway, MakeGateway
from testkit.ledger import Ledger
from testkit.load import SEGMENT_REPORT_LIMIT, Load
from testkit.running import LocalGateway, put, running, wire
from testkit.stored import batches, files
from testkit.worker_log import with_workers, workers, writers_of

# Each on a connection of its own: that one of three workers gets none of them comes once in ten millions of runs.
CONNECTIONS = 60
SEALED_LATE = {"usage_interval": "1h", "error_interval": "1h"}


def on_many_connections(send: Callable[[int], int]) -> list[int]:
    """What each of so many requests was answered with, each on a connection of its own."""
    with ThreadPoolExecutor(8) as clients:
        return list(clients.map(send, range(CONNECTIONS)))


def report(number: int, size: int = 10) -> bytes:
    """A report unlike all others."""
    return b'{"id":%d,"text":"%s"}' % (number, b"x" * size)


@pytest.mark.parametrize("count", [2, 3])
def test_every_worker_receives_and_batches_hold_the_lines_of_all(buckets: Buckets, make_gateway: MakeGateway, count: int) -> None:
    """Connections go to all workers, and what these received in an hour is one batch with every line once."""
    gateway = make_gateway(with_workers(count, buckets, aggregation=SEALED_LATE))
    gateway.start()
    assert sorted(workers(gateway)) == list(range(1, count + 1))
    assert on_many_connections(lambda number: gateway.put("/usage", report(number))) == [204] * CONNECTIONS
    assert Counter(writers_of(gateway, "usage")) == dict.fromkeys(workers(gateway).values(), 1)
    assert gateway.stop() == 0
    assert gateway.left() == []
    delivered = batches(buckets, buckets.usage)
    # The hour may have turned meanwhile.
    assert len(delivered) == len({batch.key.rpartition("/")[0] for batch in delivered})
    assert sorted(line for batch in delivered for line in batch.lines()) == sorted(map(report, range(CONNECTIONS)))


def test_auto_is_a_worker_for_each_core(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """`auto` in the environment starts a worker for each core, and none where there is one core alone."""
    gateway = make_gateway(with_workers(1, buckets), LIGHTFILE6_SERVER_WORKERS="auto")
    gateway.start()
    cores = len(os.sched_getaffinity(0))
    assert len(workers(gateway)) == (cores if cores > 1 else 0)
    assert gateway.put("/usage", report(1)) == 204
    assert gateway.stop() == 0
    assert buckets.lines(buckets.usage) == [report(1)]


def test_what_a_worker_commits_is_delivered_at_once(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Specimens do not wait, nor do reports that fill a batch, though another process receives them."""
    gateway = make_gateway(with_workers(3, buckets, aggregation={**SEALED_LATE, "max_batch_bytes": "20KiB"}))
    gateway.start()
    assert on_many_connections(lambda number: gateway.put(f"/specimen?uri={number}.bin", b"%d" % number)) == [204] * CONNECTIONS
    until(lambda: len(files(buckets, buckets.specimen)) == CONNECTIONS, "the specimens to be delivered")
    large = [report(number, SEGMENT_REPORT_LIMIT) for number in range(CONNECTIONS)]
    assert on_many_connections(lambda number: gateway.put("/usage", large[number])) == [204] * CONNECTIONS
    # Less than a batch may be left, which waits for its interval.
    until(lambda: len(writers_of(gateway, "usage")) < 6, "the batches that are full to be delivered")
    assert gateway.stop() == 0
    assert sorted(buckets.lines(buckets.usage)) == sorted(large)


def test_metrics_are_sums(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Whichever worker is asked tells what all have received, what waits of it, and what was delivered."""
    gateway = make_gateway(with_workers(3, buckets, aggregation=SEALED_LATE))
    gateway.start()
    on_many_connections(lambda number: gateway.put("/usage", report(number)))
    on_many_connections(lambda number: gateway.put(f"/specimen?uri={number}.bin", b"%d" % number))
    until(lambda: gateway.metric("waiting_files", stream="specimen") == 0, "the specimens to be delivered")
    told = [
        (
            gateway.metric("received_total", stream="usage"),
            gateway.metric("waiting_files", stream="usage"),
            gateway.metric("received_total", stream="specimen"),
        )
        for _ in range(CONNECTIONS // 3)
    ]
    assert set(told) == {(CONNECTIONS, 3, CONNECTIONS)}


def test_the_quota_is_of_all_together(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """What all workers have taken is what the quota bounds: past it each of them refuses."""
    size, quota = 20_000, 400_000
    gateway = make_gateway(with_workers(3, buckets, aggregation=SEALED_LATE, spool={"quota": quota}))
    gateway.start()
    statuses = [gateway.put("/usage", report(number, size)) for number in range(CONNECTIONS)]
    assert set(statuses) == {204, 507}
    assert quota - 2 * size <= statuses.count(204) * size <= quota + 2 * size
    assert [gateway.put("/usage", report(number, size)) for number in range(CONNECTIONS // 3)] == [507] * (CONNECTIONS // 3)
    assert gateway.stop() == 0
    assert len(buckets.lines(buckets.usage)) == statuses.count(204)


def test_every_worker_knows_what_is_wrong_with_the_delivery(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A store that refuses has all workers say `degraded` on `/ready`, one that was started since too, and receive."""
    gateway = make_gateway(with_workers(2, buckets, aws={"secret_access_key": "wrong-wrong-wrong"}))
    gateway.start()
    assert gateway.put("/specimen?uri=held.txt", b"held") == 204
    until(lambda: _ready(gateway) == {(200, "degraded")}, "the refusal to be told by all")
    assert gateway.stop(15) == 3


def _ready(gateway: Gateway) -> set[tuple[int, str]]:
    answers = [gateway.get("/ready") for _ in range(CONNECTIONS // 3)]
    return {(answer.status, answer.json()["status"]) for answer in answers}


def test_lines_of_the_log_stay_whole(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Under load every line of the log is one JSON object, and each request has its own."""
    ledger = Ledger()
    gateway = make_gateway(with_workers(3, buckets))
    gateway.start()
    with Load(gateway, ledger).running():
        until(lambda: sum(ledger.statuses.values()) > 2000, "some requests")
    assert gateway.stop() == 0
    for line in gateway.said().splitlines():
        assert isinstance(json.loads(line), dict)
    assert len(gateway.events("request done")) == sum(ledger.statuses.values()) == ledger.statuses[204]
    ledger.check(buckets)


def test_both_addresses_of_a_name(tmp_path: Path) -> None:
    """With a name for `listen.host` every address of it is listened at, by all workers."""
    found = socket.getaddrinfo("localhost", None, type=socket.SOCK_STREAM)
    addresses = sorted({str(address[0]) for *_, address in found})
    with running(tmp_path, {"listen": {"host": "localhost"}, "server": {"workers": 2}}) as gateway:
        for number in range(CONNECTIONS):
            address = addresses[number % len(addresses)]
            with socket.create_connection((address, gateway.port), 30) as connection:
                connection.sendall(put("/usage", report(number)))
                assert connection.recv(100).startswith(b"HTTP/1.1 204")
        assert set(writers_of(gateway, "usage")) == set(workers(gateway).values())
        assert gateway.stop() == 0


def test_workers_speak_tls(tmp_path: Path) -> None:
    """With a certificate all workers speak TLS, and what came by it is delivered."""
    certificate, key = _certificate(tmp_path)
    settings = {"listen": {"tls_certificate": str(certificate), "tls_key": str(key)}, "server": {"workers": 2}}
    trust = ssl.create_default_context(cafile=str(certificate))
    with running(tmp_path, settings) as gateway:
        for number in range(CONNECTIONS // 3):
            with wire(gateway.port, tls=trust) as connection:
                assert connection.ask(put("/usage", report(number))).status == 204
        assert set(writers_of(gateway, "usage")) == set(workers(gateway).values())
        assert gateway.stop() == 0
        assert _stored(gateway) == CONNECTIONS // 3


def _certificate(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_text(CERTIFICATE)
    key.write_text(KEY)
    return certificate, key


def _stored(gateway: LocalGateway) -> int:
    return sum(len(gzip.decompress(path.read_bytes()).splitlines()) for path in gateway.objects.glob("usage/**/*.jsonl.gz"))
