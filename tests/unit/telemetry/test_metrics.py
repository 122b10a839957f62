"""Every metric has its name, help and unit in one catalogue, and the spool is asked at each scrape."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import gateway
from gateway.telemetry.metrics import PREFIX, Free, Metrics, Waiting
from testkit.spool import new_metrics

STREAM_METRICS = (
    "received",
    "received_bytes",
    "delivered",
    "delivered_objects",
    "delivered_bytes",
    "quarantined",
)


@pytest.fixture
def metrics() -> Metrics:
    """Give metrics that watch a spool with one file of 7 bytes and 3 seconds in it."""
    made = new_metrics()
    made.watch(lambda: [Waiting("usage", 1, 7, 3.0), Waiting("error", 0, 0, 0.0)], lambda: Free(1000, 50), lambda: 0.0)
    return made


def test_every_metric_is_described(metrics: Metrics) -> None:
    """Every family has the program's prefix and a help that is a sentence."""
    families = list(text_string_to_metric_families(metrics.render().decode()))
    assert len(families) >= 15
    for family in families:
        assert family.name.startswith(PREFIX)
        assert family.documentation.endswith(".")
        assert family.documentation[0].isupper() or family.documentation[0].isdigit()


def test_times_are_histograms_of_seconds(metrics: Metrics) -> None:
    """Each histogram is of seconds, says so in its name, and has buckets that increase."""
    families = [family for family in text_string_to_metric_families(metrics.render().decode()) if family.type == "histogram"]
    durations = {f"{what}_duration_seconds" for what in ("request", "sync", "delivery")}
    assert {family.name.removeprefix(PREFIX) for family in families} == durations
    metrics.sync_duration.labels("usage").observe(0.002)
    assert metrics.registry.get_sample_value(f"{PREFIX}sync_duration_seconds_count", {"stream": "usage"}) == 1


@pytest.mark.parametrize("name", STREAM_METRICS)
def test_streams_are_counted_apart(metrics: Metrics, name: str) -> None:
    """What one stream counts does not show in another's series."""
    getattr(metrics, name).labels("usage").inc(2)
    getattr(metrics, name).labels("error").inc()
    values = [metrics.registry.get_sample_value(f"{PREFIX}{name}_total", {"stream": stream}) for stream in ("usage", "error")]
    assert values == [2, 1]


def test_what_waits_is_asked_at_each_scrape(metrics: Metrics) -> None:
    """The gauges of the spool have the values of the moment of the scrape."""
    value = metrics.registry.get_sample_value
    assert value(f"{PREFIX}waiting_files", {"stream": "usage"}) == 1
    assert value(f"{PREFIX}waiting_bytes", {"stream": "usage"}) == 7
    assert value(f"{PREFIX}waiting_oldest_age_seconds", {"stream": "usage"}) == 3
    assert value(f"{PREFIX}waiting_files", {"stream": "error"}) == 0
    assert value(f"{PREFIX}spool_free_bytes") == 1000
    assert value(f"{PREFIX}spool_free_inodes") == 50


def test_a_file_system_without_a_bound_on_inodes_has_no_end_of_them() -> None:
    """Where the file system has no bound of its own the gauge never comes near an alert."""
    made = new_metrics()
    made.watch(list, lambda: Free(1000, None), lambda: 0.0)
    assert made.registry.get_sample_value(f"{PREFIX}spool_free_inodes") == math.inf


def test_watching_asks_the_spool_nothing() -> None:
    """A spool that cannot be asked yet can be watched already."""

    def not_yet() -> list[Waiting]:
        raise AssertionError("asked before a scrape")

    new_metrics().watch(not_yet, lambda: Free(0, None), lambda: 0.0)


def test_two_gateways_count_apart() -> None:
    """Metrics of two gateways in one process do not know of each other."""
    one, other = new_metrics(), new_metrics()
    one.received.labels("usage").inc()
    assert other.registry.get_sample_value(f"{PREFIX}received_total", {"stream": "usage"}) == 0


def test_metrics_are_made_in_one_file() -> None:
    """No other file of the package makes a metric of its own; what a metric is stands in one beside it."""
    for path in Path(gateway.__file__).parent.rglob("*.py"):
        if path.name in ("metrics.py", "metric_values.py"):
            continue
        imported = {
            name
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
        }
        assert not any(name.startswith("prometheus_client") for name in imported), path.name
