"""The paths that are the gateway's own."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core.streams import Stream

HEALTH = "/health"
READY = "/ready"
METRICS = "/metrics"
# Asked every few seconds by machines. In an order, since every process lays out its counters as the others do.
PROBES = (HEALTH, READY, METRICS)


def routes_of(streams: Iterable[Stream]) -> tuple[str, ...]:
    """Every path that is answered, in the order in which each process of a gateway counts them."""
    return (*PROBES, *(stream.path for stream in streams))
