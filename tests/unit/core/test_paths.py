"""Each path leads to one thing, and all that speak of paths speak of the same."""

from __future__ import annotations

from gateway.core.paths import PROBES, routes_of
from gateway.telemetry.metrics import PREFIX
from testkit.spool import STREAMS, new_metrics


def test_no_stream_hides_a_probe() -> None:
    """No two of the probes and the streams have a path in common."""
    assert len(set(routes_of(STREAMS))) == len(PROBES) + len(STREAMS)


def test_every_route_is_counted() -> None:
    """The time of requests has a series for each path that is answered, from the beginning."""
    value = new_metrics().registry.get_sample_value
    for route in routes_of(STREAMS):
        assert value(f"{PREFIX}request_duration_seconds_count", {"route": route}) == 0
