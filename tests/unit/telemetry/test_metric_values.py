"""Metrics are sums over all processes, told as any Prometheus client tells them."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from gateway.core.shared_counters import SharedCounters
from gateway.telemetry.metric_values import OTHER, Counts, Durations

BUCKETS_S = (0.1, 1.0)


class Process:
    """The metrics of one process, all on the same counters."""

    def __init__(self, counters: SharedCounters) -> None:
        self.registry = CollectorRegistry()
        labels = {"stream": ["usage", "error"], "kind": ["good", "bad"]}
        self.counter = Counts(self.registry, counters, CounterMetricFamily, "seen", "What was seen.", labels)
        self.bounded = Counts(self.registry, counters, CounterMetricFamily, "status", "By status.", {"code": ["204", OTHER]})
        self.gauge = Counts(self.registry, counters, GaugeMetricFamily, "refusing", "Whether it refuses.", {})
        self.durations = Durations(self.registry, counters, "took_seconds", "How long.", {"stream": ["usage"]}, BUCKETS_S)

    def value(self, name: str, **labels: str) -> float | None:
        """The value of one series as it is told."""
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def processes() -> list[Process]:
    """Give three processes of one gateway."""
    first = SharedCounters(3)
    others = [SharedCounters(3, column=at, descriptor=first.descriptor) for at in (1, 2)]
    return [Process(counters) for counters in (first, *others)]


def test_a_counter_is_a_sum(processes: list[Process]) -> None:
    """Each process counts for itself, and every one of them tells the sum."""
    for number, process in enumerate(processes, start=1):
        process.counter.labels("usage", "bad").inc(number)
        process.counter.labels("error", "good").inc()
    assert [process.value("seen_total", stream="usage", kind="bad") for process in processes] == [6, 6, 6]
    assert processes[0].value("seen_total", stream="error", kind="good") == 3
    assert processes[0].value("seen_total", stream="usage", kind="good") == 0


def test_a_series_that_is_there_is_told_before_it_counts(processes: list[Process]) -> None:
    """All combinations of labels are told as 0 from the beginning, so that the first increase is seen as one."""
    assert processes[0].value("seen_total", stream="error", kind="bad") == 0
    assert processes[0].value("seen_total", stream="specimen", kind="bad") is None


def test_labels_are_bounded(processes: list[Process]) -> None:
    """A value that is not listed counts as `other`."""
    processes[1].bounded.labels("418").inc()
    processes[2].bounded.labels("204").inc()
    assert (processes[0].value("status_total", code="other"), processes[0].value("status_total", code="204")) == (1, 1)


def test_a_gauge_is_what_was_set_last(processes: list[Process]) -> None:
    """Setting replaces."""
    for value in (1, 0, 1):
        processes[0].gauge.labels().set(value)
    assert processes[2].value("refusing") == 1


def test_a_histogram_is_a_sum_of_all_buckets(processes: list[Process]) -> None:
    """Buckets hold what is not above their bound, of all processes, and so do count and sum."""
    processes[0].durations.labels("usage").observe(0.05)
    processes[1].durations.labels("usage").observe_all([0.1, 0.5])
    processes[2].durations.labels("usage").observe(7.0)
    told = [processes[1].value("took_seconds_bucket", stream="usage", le=bound) for bound in ("0.1", "1.0", "+Inf")]
    assert told == [2, 3, 4]
    assert processes[1].value("took_seconds_count", stream="usage") == 4
    assert processes[1].value("took_seconds_sum", stream="usage") == pytest.approx(7.65)


def test_the_page_says_what_each_metric_is(processes: list[Process]) -> None:
    """Type and text of each family stand on the page, as scrapers want them."""
    page = generate_latest(processes[0].registry).decode()
    for name, kind in (("seen_total", "counter"), ("refusing", "gauge"), ("took_seconds", "histogram")):
        assert f"# TYPE {name} {kind}\n" in page
    assert "# HELP seen_total What was seen.\n" in page


def test_a_name_is_registered_once(processes: list[Process]) -> None:
    """A second family of the same name is an error at the start, not two series on the page."""
    with pytest.raises(ValueError, match="seen"):
        Counts(processes[0].registry, SharedCounters(), CounterMetricFamily, "seen", "Again.", {})
