"""The catalogue of metrics, each with its help and unit; the documentation lists them and a test compares the two."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

PREFIX = "lightfile6_"
REQUEST_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
SYNC_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10)
UPLOAD_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """Every metric of one gateway, in a registry of its own."""

    def __init__(self) -> None:
        # A second series for each counter, whose value nobody here asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(PREFIX + name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(PREFIX + name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=registry)

        self.received = counter("received", "Reports, or files, acknowledged.", "stream")
        self.received_bytes = counter("received_bytes", "Bytes of body acknowledged, as sent.", "stream")
        self.refused = counter("refused", "Requests answered with an error, by HTTP status.", "status")
        self.delivered = counter("delivered", "Reports, or files, that the store has confirmed.", "stream")
        self.delivered_objects = counter("delivered_objects", "Objects that the store has confirmed.", "stream")
        self.delivered_bytes = counter("delivered_bytes", "Bytes of objects that the store has confirmed.", "stream")
        self.retries = counter("delivery_retries", "Failed attempts to deliver, by kind of failure.", "stream", "kind")
        self.refusing = gauge("store_refusing", "1 while the store refuses the stream: credentials, bucket or policy.", "stream")
        self.quarantined = counter("quarantined", "Things set aside because they could not be read.", "stream")
        self.request_seconds = Durations(
            "request_seconds", "Seconds from the head of a request to its answer.", REQUEST_BUCKETS_S, "route"
        )
        registry.register(self.request_seconds)
        self.sync_seconds = histogram(
            "sync_seconds", "Seconds that a write of the spool took to be synced.", SYNC_BUCKETS_S, "stream"
        )
        self.upload_seconds = histogram(
            "upload_seconds",
            "Seconds from the begin of an upload to the store's confirmation.",
            UPLOAD_BUCKETS_S,
            "stream",
        )

    def prepare(self, streams: Iterable[str]) -> None:
        """Have every series of these streams begin at 0: a series that appears with its first event hides that event."""
        for stream in streams:
            for metric in (self.received, self.received_bytes, self.delivered, self.delivered_objects, self.delivered_bytes):
                metric.labels(stream)
            self.quarantined.labels(stream)
            self.upload_seconds.labels(stream)
            self.sync_seconds.labels(stream)
            self.refusing.labels(stream)
            for kind in ("transient", "refused", "object"):
                self.retries.labels(stream, kind)

    def watch(self, waiting: Callable[[], Iterable[Waiting]], free_bytes: Callable[[], int]) -> None:
        """Have the state of the spool asked at each scrape."""
        self.registry.register(SpoolCollector(waiting, free_bytes))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class Duration:
    """How often something took how long; for one thread, and read by any."""

    def __init__(self, buckets_s: tuple[float, ...]) -> None:
        self._buckets_s = buckets_s
        self._counts = [0] * (len(buckets_s) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.observe_all((seconds,))

    def observe_all(self, seconds: Sequence[float]) -> None:
        """Count many at once."""
        buckets_s, counts = self._buckets_s, self._counts
        for each in seconds:
            counts[bisect_left(buckets_s, each)] += 1
        self._sum_s += sum(seconds)

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """For each bucket its upper bound and how many are not above it, and the sum of all in seconds."""
        bounds = [*map(floatToGoString, self._buckets_s), "+Inf"]
        return list(zip(bounds, itertools.accumulate(self._counts), strict=True)), self._sum_s


class Durations(Collector):
    """A histogram that costs next to nothing to add to: the one of requests is added to thousands of times a second.

    Args:
        name, text, label: as in the page of metrics.
        buckets_s: the upper bounds, in seconds.
    """

    def __init__(self, name: str, text: str, buckets_s: tuple[float, ...], label: str) -> None:
        self._family = PREFIX + name, text
        self._buckets_s = buckets_s
        self._label = label
        self._durations: dict[str, Duration] = {}

    def labels(self, value: str) -> Duration:
        """The series with this value of the label."""
        return self._durations.setdefault(value, Duration(self._buckets_s))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The family, without its values."""
        return [HistogramMetricFamily(*self._family, labels=[self._label])]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The family with the values of now."""
        family = HistogramMetricFamily(*self._family, labels=[self._label])
        for value, duration in list(self._durations.items()):
            family.add_metric([value], *duration.told())
        return [family]


class Waiting:
    """What waits of one stream: its name, files, bytes, and the age of the oldest in seconds (0 when nothing waits)."""

    __slots__ = ("age_s", "bytes", "files", "stream")

    def __init__(self, stream: str, files: int, size: int, age_s: float) -> None:
        self.stream = stream
        self.files = files
        self.bytes = size
        self.age_s = age_s


class SpoolCollector(Collector):
    """Gauges that are read from the spool when they are asked for."""

    def __init__(self, waiting: Callable[[], Iterable[Waiting]], free_bytes: Callable[[], int]) -> None:
        self._waiting = waiting
        self._free_bytes = free_bytes

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The families, without asking the spool for their values."""
        return self._families()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The families with the values of now."""
        files, size, age, free = families = self._families()
        for waiting in self._waiting():
            files.add_metric([waiting.stream], waiting.files)
            size.add_metric([waiting.stream], waiting.bytes)
            age.add_metric([waiting.stream], waiting.age_s)
        free.add_metric([], self._free_bytes())
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
        )
