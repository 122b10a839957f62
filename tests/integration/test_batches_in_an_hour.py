from __future__ import annotations

from collections import defaultdict

from testkit.buckets import Buckets, StoredObject
from testkit.deadlines import until
from testkit.gateway_process import HOST, MakeGateway, settings_for
from testkit.stored import batches, keys

RUNS = 3


def lines_of(stored: list[StoredObject]) -> list[bytes]:
    """The lines of all batches."""
    return [line for batch in stored for line in batch.lines()]


def assert_numbered(stored: list[StoredObject]) -> None:
    """Every hour has its plain key and then `.2`, `.3`, … without a gap: the test may run while an hour turns."""
    by_hour: dict[str, list[str]] = defaultdict(list)
    for batch in stored:
        folder, _, name = batch.key.rpartition("/")
        by_hour[folder].append(name)
    for folder, names in by_hour.items():
        hour = folder.replace("/", "")
        numbers = ["", *(f".{number}" for number in range(2, len(names) + 1))]
        assert sorted(names) == sorted(f"{hour}.{HOST}{number}.jsonl.gz" for number in numbers)


def test_six_batches_in_an_hour(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Six batches of one hour, cut by the interval and by three stops, are six objects: none takes the place of another."""
    gateway = make_gateway(settings_for(buckets))
    for run in range(RUNS):
        gateway.start()
        assert gateway.put("/usage", b'{"run":%d,"cut":"by the interval"}' % run) == 204
        until(lambda run=run: len(keys(buckets, buckets.usage)) == 2 * run + 1, "the batch of the interval")  # type: ignore[misc]
        assert gateway.put("/usage", b'{"run":%d,"cut":"by the stop"}' % run) == 204
        assert gateway.stop() == 0
    stored = batches(buckets, buckets.usage)
    expected = [b'{"run":%d,"cut":"by the %s"}' % (run, cut) for run in range(RUNS) for cut in (b"interval", b"stop")]
    assert lines_of(stored) == expected
    assert_numbered(stored)
    assert len({batch.metadata["batch"] for batch in stored}) == 2 * RUNS


def test_batches_cut_by_size(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Enough reports are a batch before the interval is over, and each such batch has a key of its own."""
    gateway = make_gateway(
        settings_for(
            buckets,
            aggregation={"usage_interval": "1h", "max_batch_bytes": "8KiB"},
            spool={"segment_max_bytes": "2KiB", "segment_report_limit": "1KiB"},
        )
    )
    gateway.start()
    # Every second one is large enough for a file of its own.
    reports = [b'{"n":%d,"text":"%s"}' % (number, b"x" * (900 + number % 2 * 1200)) for number in range(40)]
    for report in reports:
        assert gateway.put("/usage", report) == 204
    until(lambda: len(keys(buckets, buckets.usage)) >= 6, "the batches cut by size")
    assert gateway.stop() == 0
    stored = batches(buckets, buckets.usage)
    assert sorted(lines_of(stored)) == sorted(reports)
    assert_numbered(stored)


def test_two_gateways_of_one_name(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Two gateways with one host name and one bucket share its keys without taking each other's."""
    gateways = [make_gateway(settings_for(buckets), folder=folder) for folder in ("one", "two")]
    for gateway in gateways:
        gateway.start()
    for number in range(2):
        for name, gateway in enumerate(gateways):
            assert gateway.put("/usage", b'{"gateway":%d,"n":%d}' % (name, number)) == 204
        # The intervals of the two run side by side, so that they ask for the same number.
        until(lambda number=number: len(keys(buckets, buckets.usage)) == 2 * number + 2, "both batches")  # type: ignore[misc]
    for gateway in gateways:
        assert gateway.stop() == 0
    stored = batches(buckets, buckets.usage)
    assert sorted(lines_of(stored)) == sorted(b'{"gateway":%d,"n":%d}' % (name, n) for name in (0, 1) for n in (0, 1))
    assert_numbered(stored)
