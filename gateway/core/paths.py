"""The paths that are answered."""

from __future__ import annotations

HEALTH = "/health"
READY = "/ready"
METRICS = "/metrics"
# Asked every few seconds by machines. In an order, since every process has to lay out its board as the others do.
PROBES = (HEALTH, READY, METRICS)


def route_of(stream: str) -> str:
    """The path to which what belongs to a stream is sent."""
    return f"/{stream}"
