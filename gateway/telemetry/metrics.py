"""The catalogue of metrics, each with its help and unit; the documentation lists them and a test compares the two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.core.shared_counters import SharedCounters, cells_for
from gateway.telemetry.metric_values import OTHER, Counts, Durations, Labels

PREFIX = "lightfile6_"
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
SYNC_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10)
UPLOAD_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
STATUSES = ("400", "401", "404", "405", "408", "413", "414", "415", "417", "431", "500", "501", "503", "505", "507")
# What the Go edition left and is of no stream.
ADOPTING = "adopting"
KINDS_OF_FAILURE = ("transient", "throttled", "refused", "object")


class Metrics:
    """Every metric of one gateway, in a registry of its own.

    Every series is there from the beginning, at 0: one that appeared with its first event would hide that event.

    Args:
        streams: their names.
        routes: the paths that are answered.
        counters: where the values stand; each process counts for itself, and all of them expose the sums.
    """

    def __init__(self, streams: Sequence[str], routes: Sequence[str], counters: SharedCounters | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        counters = counters or SharedCounters(cells=cells_for(len(streams)))
        routes = (*routes, OTHER)
        per_stream: Labels = {"stream": streams}

        def counter(name: str, text: str, labels: Labels) -> Counts:
            return Counts(registry, counters, CounterMetricFamily, PREFIX + name, text, labels)

        def histogram(name: str, text: str, buckets_s: tuple[float, ...], labels: Labels) -> Durations:
            return Durations(registry, counters, PREFIX + name, text, labels, buckets_s)

        self.received = counter("received", "Reports, or files, acknowledged.", per_stream)
        self.received_bytes = counter("received_bytes", "Bytes of body acknowledged, as sent.", per_stream)
        self.rejected = counter(
            "requests_rejected", "Requests answered with an error, by HTTP status.", {"status": (*STATUSES, OTHER)}
        )
        self.delivered = counter("delivered", "Reports, or files, that the store has confirmed.", per_stream)
        self.delivered_objects = counter("delivered_objects", "Objects that the store has confirmed.", per_stream)
        self.delivered_bytes = counter("delivered_bytes", "Bytes of objects that the store has confirmed.", per_stream)
        self.delivery_failures = counter(
            "delivery_failures", "Failed attempts to deliver, by kind of failure.", {**per_stream, "kind": KINDS_OF_FAILURE}
        )
        text = "1 while the store refuses the stream: credentials, bucket or policy."
        self.refusing = Counts(registry, counters, GaugeMetricFamily, PREFIX + "store_refusing", text, per_stream)
        self.quarantined = counter(
            "quarantined", "Things set aside because they could not be read.", {"stream": (*streams, ADOPTING)}
        )
        self.open_connections = Counts(
            registry, counters, GaugeMetricFamily, PREFIX + "open_connections", "Connections that are open.", {}
        )
        text = "Connections that the limit of open files allows, files of bodies that are received among them."
        self.max_connections = Counts(registry, counters, GaugeMetricFamily, PREFIX + "max_connections", text, {})
        self.worker_deaths = counter("worker_deaths", "Worker processes that ended by themselves.", {})
        self.request_duration = histogram(
            "request_duration_seconds", "Seconds from the head of a request to its answer.", REQUEST_BUCKETS_S, {"route": routes}
        )
        self.sync_duration = histogram(
            "sync_duration_seconds", "Seconds that a write of the spool took to be synced.", SYNC_BUCKETS_S, per_stream
        )
        self.delivery_duration = histogram(
            "delivery_duration_seconds",
            "Seconds from taking a thing up until it is confirmed by the store and removed.",
            UPLOAD_BUCKETS_S,
            per_stream,
        )

    def watch(self, waiting: Callable[[], Iterable[Waiting]], free: Callable[[], Free], ahead_s: Callable[[], float]) -> None:
        """Have the state of the spool asked at each scrape."""
        self.registry.register(SpoolCollector(waiting, free, ahead_s))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class Waiting:
    """What waits of one stream: its name, files, bytes, and the age of the oldest in seconds (0 when nothing waits)."""

    __slots__ = ("age_s", "bytes", "files", "stream")

    def __init__(self, stream: str, files: int, size: int, age_s: float) -> None:
        self.stream = stream
        self.files = files
        self.bytes = size
        self.age_s = age_s


class Free:
    """What is free on the file system of the spool: bytes, and inodes, None where those have no bound."""

    __slots__ = ("bytes", "inodes")

    def __init__(self, size: int, inodes: int | None) -> None:
        self.bytes = size
        self.inodes = inodes


class SpoolCollector(Collector):
    """Gauges that are read from the spool when they are asked for."""

    def __init__(self, waiting: Callable[[], Iterable[Waiting]], free: Callable[[], Free], ahead_s: Callable[[], float]) -> None:
        self._waiting = waiting
        self._free = free
        self._ahead_s = ahead_s

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families, without asking the spool for their values."""
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families with the values of now."""
        files, size, age, free_bytes, free_inodes, ahead = families = self._families()
        for waiting in self._waiting():
            files.add_metric([waiting.stream], waiting.files)
            size.add_metric([waiting.stream], waiting.bytes)
            age.add_metric([waiting.stream], waiting.age_s)
        free = self._free()
        free_bytes.add_metric([], free.bytes)
        free_inodes.add_metric([], math.inf if free.inodes is None else free.inodes)
        ahead.add_metric([], self._ahead_s())
        return families

    def _families(self) -> tuple[GaugeMetricFamily, ...]:
        return (
            GaugeMetricFamily(PREFIX + "waiting_files", "Files in the spool that are not delivered yet.", labels=["stream"]),
            GaugeMetricFamily(PREFIX + "waiting_bytes", "Bytes in the spool that are not delivered yet.", labels=["stream"]),
            GaugeMetricFamily(
                PREFIX + "waiting_oldest_age_seconds",
                "Age of the oldest thing that is not delivered yet.",
                labels=["stream"],
            ),
            GaugeMetricFamily(PREFIX + "spool_free_bytes", "Bytes free on the file system of the spool."),
            GaugeMetricFamily(
                PREFIX + "spool_free_inodes",
                "Files that can still be created on the file system of the spool, +Inf without a bound.",
            ),
            GaugeMetricFamily(
                PREFIX + "names_ahead_seconds",
                "How far the order of names in the spool is ahead of the clock, which was stepped back; times stay true.",
            ),
        )
