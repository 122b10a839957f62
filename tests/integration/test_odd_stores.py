from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from testkit.deadlines import until
from testkit.gateway_process import HOST, STREAMS, MakeGateway, settings_for
from testkit.servers.fake_s3 import CONFLICT, LOST, FakeS3, Kept, fake_s3
from testkit.servers.minio import Minio
from testkit.stored import PROOF

RUNS = 3


@dataclass(frozen=True)
class OddStore:
    """A fake S3 as a place to deliver to."""

    fake: FakeS3
    usage: str = "usage"
    error: str = "error"
    specimen: str = "specimen"

    @property
    def minio(self) -> Minio:
        """Where it listens."""
        return Minio(self.fake.endpoint, "any", "any-secret")

    def kept(self, bucket: str) -> dict[str, Kept]:
        """What was delivered to a bucket, by key."""
        found = self.fake.objects.items()
        return {key: kept for (where, key), kept in found if where == bucket and not key.endswith(PROOF)}

    def lines(self, bucket: str) -> list[bytes]:
        """The lines of every batch in a bucket."""
        return [line for _, kept in sorted(self.kept(bucket).items()) for line in gzip.decompress(kept.body).splitlines()]

    def puts(self) -> list[tuple[str, str]]:
        """Bucket and key of every put but those of the proof."""
        requests = [request for request in self.fake.requests if request.operation == "PutObject"]
        return [(request.bucket, request.key) for request in requests if not request.key.endswith(PROOF)]

    def is_proved(self) -> bool:
        """Whether the gateway has found out what it wants to know before it sends anything: two puts to each bucket."""
        return self.fake.operations().count("PutObject") - len(self.puts()) >= 6


@pytest.fixture
def store() -> Iterator[OddStore]:
    """Run a store that a test can make misbehave."""
    with fake_s3() as fake:
        yield OddStore(fake)


def test_a_store_that_would_replace(store: OddStore, make_gateway: MakeGateway) -> None:
    """Where the store ignores `If-None-Match`, every key carries the id of its batch or specimen, and nothing is replaced."""
    store.fake.condition = "ignored"
    gateway = make_gateway(settings_for(store))
    for run in range(RUNS):
        gateway.start()
        assert gateway.put("/usage", b'{"run":%d}' % run) == 204
        assert gateway.put("/specimen?uri=same.txt", b"specimen %d" % run) == 204
        assert gateway.stop() == 0
    assert sorted(store.lines("usage")) == [b'{"run":%d}' % run for run in range(RUNS)]
    for key, kept in store.kept("usage").items():
        batch = kept.metadata["batch"]
        assert re.fullmatch(rf"\d{{4}}/\d\d/\d\d/\d\d/\d{{10}}\.{HOST}\.{batch}\.jsonl\.gz", key), key
    for key, kept in store.kept("specimen").items():
        assert f".{kept.metadata['id']}." in key
    assert sorted(kept.body for kept in store.kept("specimen").values()) == [b"specimen %d" % run for run in range(RUNS)]
    assert len(store.puts()) == len(set(store.puts())), "a key was put twice"


def test_a_store_that_answers_409(store: OddStore, make_gateway: MakeGateway) -> None:
    """A store that answers 409 for a while gets the same key again until it takes it, and holds everything once."""
    gateway = make_gateway(settings_for(store, aggregation={"usage_interval": "1h"}))
    gateway.start()
    until(store.is_proved, "the proofs")
    store.fake.fail_always("PutObject", CONFLICT)
    assert gateway.put("/specimen?uri=a.txt", b"a specimen") == 204
    until(lambda: gateway.metric("delivery_failures_total", stream="specimen", kind="transient") >= 3, "retries")
    assert store.kept("specimen") == {}
    store.fake.fail_always("PutObject", None)
    until(lambda: gateway.left() == [], "the specimen to be delivered")
    assert [kept.body for kept in store.kept("specimen").values()] == [b"a specimen"]
    until(
        lambda: gateway.events("delivery recovered", stream="specimen"), "its end to be told"
    )  # the line is written by a thread of its own
    assert (
        len(gateway.events("delivery failed", stream="specimen"))
        == len(gateway.events("delivery recovered", stream="specimen"))
        == 1
    )

    assert gateway.put("/usage", b'{"n":1}') == 204
    store.fake.fail("PutObject", CONFLICT, CONFLICT, CONFLICT)
    assert gateway.stop() == 0
    assert store.lines("usage") == [b'{"n":1}']
    assert len(set(store.puts())) == 2, "another key was tried"


def test_a_store_whose_answers_are_lost(store: OddStore, make_gateway: MakeGateway) -> None:
    """A put that succeeded and whose answer was lost is known again, and makes no second object."""
    gateway = make_gateway(settings_for(store))
    gateway.start()
    until(store.is_proved, "the proofs")
    for stream, body in (("usage", b'{"n":1}'), ("error", b'{"n":2}'), ("specimen?uri=a.txt", b"a specimen")):
        store.fake.fail("PutObject", LOST)
        assert gateway.put(f"/{stream}", body) == 204
        until(lambda: gateway.left() == [], "it to be retired")
    assert (store.lines("usage"), store.lines("error")) == ([b'{"n":1}'], [b'{"n":2}'])
    assert [kept.body for kept in store.kept("specimen").values()] == [b"a specimen"]
    assert len(store.puts()) > len(set(store.puts())) == 3, "another key was tried, or none a second time"
    # The line of a delivery comes a moment after the file is gone; at its end the gateway has told all.
    assert gateway.stop() == 0
    sent = [gateway.events("object delivered", stream=stream) for stream in STREAMS]
    assert [[event["outcome"] for event in events] for events in sent] == [["present"]] * 3
