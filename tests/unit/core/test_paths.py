"""Each path leads to one thing, and all that speak of paths speak of the same."""

from __future__ import annotations

from gateway.core.paths import PROBES, route_of
from gateway.core.streams import STREAMS
from gateway.telemetry.metrics import PREFIX, Metrics

STREAM_ROUTES = [route_of(name) for name, _ in STREAMS]


def test_no_stream_hides_a_probe() -> None:
    """No two of the probes and the streams have a path in common."""
    assert len({*PROBES, *STREAM_ROUTES}) == len(PROBES) + len(STREAMS)


def test_every_route_is_counted() -> None:
    """The time of requests has a series for each path that is answered, from the beginning."""
    value = Metrics().registry.get_sample_value
    for route in (*PROBES, *STREAM_ROUTES):
        assert value(f"{PREFIX}request_seconds_count", {"route": route}) == 0
