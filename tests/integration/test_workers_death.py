from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import STREAMS, Gateway, MakeGateway
from testkit.ledger import Fate, Ledger
from testkit.load import Load
from testkit.worker_log import gone, kill_first, kill_worker, replaced, with_workers, workers

DEATHS = 3
# Small segments and batches, so that a death finds every step of the way under way.
SMALL: dict[str, dict[str, object]] = {
    "aggregation": {"max_batch_bytes": "64KiB"},
    "spool": {"segment_max_bytes": "32KiB", "segment_max_age": "50ms", "segment_report_limit": 4096},
}


def some_answers(ledger: Ledger) -> None:
    """Return after a while of load."""
    enough = ledger.requests(Fate.ACKNOWLEDGED) + random.randrange(50, 300)
    until(lambda: ledger.requests(Fate.ACKNOWLEDGED) >= enough, "some requests to be answered")


class Counters:
    """What `/metrics` tells of all that was received, asked for again and again."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ending = threading.Event()
        self.told: list[dict[str, float]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask within this block."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            thread.join(30)

    def fallen(self) -> list[tuple[float, float]]:
        """Where a sum was less than it had been."""
        pairs = zip(self.told, self.told[1:], strict=False)
        return [(before[one], after[one]) for before, after in pairs for one in before if after.get(one, 0) < before[one]]

    def _watch(self) -> None:
        while not self._ending.wait(0.02):
            # The one that was asked may be the one that dies.
            with suppress(OSError, http.client.HTTPException):
                page = self._gateway.get("/metrics").body.decode().splitlines()
                told = (line.rpartition(" ") for line in page if line.startswith("lightfile6_received"))
                self.told.append(
                    {name: float(value) for name, _, value in told if not name.partition("{")[0].endswith("created")}
                )


def test_workers_that_die_under_load_lose_nothing(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A killed worker is told and replaced, the clients go on, no sum goes back, and all that was taken is stored once."""
    ledger = Ledger()
    gateway = make_gateway(with_workers(2, buckets, **SMALL))
    gateway.start()
    counters = Counters(gateway)
    killed = []
    with counters.watched(), Load(gateway, ledger, clients=16, breath_s=0.02).running():
        for number in range(DEATHS):
            some_answers(ledger)
            killed.append(kill_worker(gateway, 1 + number % 2))
            until(replaced(gateway, killed[-1]), "another worker")
        some_answers(ledger)
    assert ledger.requests(Fate.UNANSWERED) > 0, "no kill came in the middle of a request"
    until(lambda: not any(gateway.metric("waiting_files", stream=stream) for stream in STREAMS), "all to be delivered")
    assert len(counters.told) > 10
    assert counters.fallen() == []
    received = gateway.metric("received_total", stream="specimen")
    assert gateway.stop(60) == 0, gateway.said()
    assert gateway.left() == []
    assert [(line["pid"], line["exit_code"]) for line in gateway.events("worker died")] == [(pid, -9) for pid in killed]
    assert gateway.events("defect") == gateway.events("quarantined") == []
    assert received > 0
    ledger.check(buckets)


def test_when_the_first_process_dies_the_others_go(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """A first process that is killed under load takes its workers with it at once, and the next start delivers all."""
    ledger = Ledger()
    gateway = make_gateway(with_workers(2, buckets, **SMALL))
    gateway.start()
    with Load(gateway, ledger, clients=16, breath_s=0.04).running():
        for number in range(DEATHS):
            some_answers(ledger)
            if number % 2:
                # The lock is that of a process that has only just begun to start.
                gone_later = [kill_worker(gateway, 1)]
                until(lambda pid=gone_later[0]: any(line["pid"] == pid for line in gateway.events("worker died")), "its end")  # type: ignore[misc]
            left = kill_first(gateway)
            gateway.start()
            gone(left)
        some_answers(ledger)
    assert ledger.requests(Fate.UNANSWERED) > 0, "no kill came in the middle of a request"
    assert gateway.stop(60) == 0, gateway.said()
    assert gateway.left() == []
    ledger.check(buckets)


def test_when_all_die_at_once_nothing_is_lost(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """All processes killed at the same moment, under load, and started again."""
    ledger = Ledger()
    gateway = make_gateway(with_workers(3, buckets, **SMALL))
    gateway.start()
    with Load(gateway, ledger, clients=16, breath_s=0.04).running():
        for _ in range(DEATHS):
            some_answers(ledger)
            left = list(workers(gateway).values())
            gateway.kill()
            gone(left)
            gateway.start()
        some_answers(ledger)
    assert gateway.stop(60) == 0, gateway.said()
    assert gateway.left() == []
    ledger.check(buckets)


def test_the_next_start_waits_for_workers_that_are_left(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """While a worker of a dead gateway is still there, however slow, nobody else touches the spool, and then all is delivered."""
    gateway = make_gateway(with_workers(2, buckets, aggregation={"usage_interval": "1h"}))
    gateway.start()
    bodies = [b'{"n":%d}' % number for number in range(20)]
    assert [gateway.put("/usage", body) for body in bodies] == [204] * len(bodies)
    slow = workers(gateway)[1]
    os.kill(slow, signal.SIGSTOP)
    try:
        left = kill_first(gateway)
        gateway.launch()
        until(lambda: gateway.events("configuration in effect"), "the next start to come to the lock")
        # That nothing happens can only be waited for.
        time.sleep(1)
        assert gateway.events("recovery done") == []
        assert gateway.is_running
    finally:
        os.kill(slow, signal.SIGCONT)
    until(lambda: gateway.events("listening"), "the next start")
    gone(left)
    assert gateway.stop() == 0
    assert sorted(buckets.lines(buckets.usage)) == sorted(bodies)
