"""Metrics whose values are shared counters: each process of the gateway counts for itself, and any of them exposes the sums.

They cost next to nothing to add to. The library's own take a lock for each number, which for a small report is more than
the check of its JSON takes.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.core.shared_counters import Floats, SharedCounters

# For each label the values it may have; where there is one called `other`, it stands for all that are not listed.
Labels = Mapping[str, Sequence[str]]
OTHER = "other"


class Count:
    """A number; added to by one thread at a time."""

    def __init__(self, cells: Floats) -> None:
        self._cells = cells

    def inc(self, amount: float = 1) -> None:
        """Add to it."""
        self._cells.mine[0] += amount

    def set(self, value: float) -> None:
        """Replace it; for what only one process sets."""
        self._cells.mine[0] = value

    def total(self) -> float:
        """The sum over all processes."""
        return self._cells.total()


class Duration:
    """How often something took how long; added to by one thread at a time."""

    def __init__(self, cells: Floats, buckets_s: tuple[float, ...]) -> None:
        # A cell for each bucket, one for what is above them, and the sum.
        self._cells = cells
        self._buckets_s = buckets_s

    def observe(self, seconds: float) -> None:
        """Add one."""
        self.observe_all((seconds,))

    def observe_all(self, seconds: Sequence[float]) -> None:
        """Add many at once."""
        buckets_s, mine = self._buckets_s, self._cells.mine
        for each in seconds:
            mine[bisect_left(buckets_s, each)] += 1
        mine[-1] += sum(seconds)

    def totals(self) -> tuple[list[tuple[str, float]], float]:
        """For each bucket its upper bound and how many are not above it, and the sum of all in seconds."""
        bounds = [*map(floatToGoString, self._buckets_s), "+Inf"]
        counts = [self._cells.total(at) for at in range(len(bounds))]
        return list(zip(bounds, itertools.accumulate(counts), strict=True)), self._cells.total(len(bounds))


T = TypeVar("T", Count, Duration)


class _Family(Collector, Generic[T]):
    """The series of one metric, one for each combination of its labels' values."""

    def __init__(self, registry: CollectorRegistry, labels: Labels, series: Iterator[T]) -> None:
        self._names = list(labels)
        self._series: dict[tuple[str, ...], T] = dict(zip(itertools.product(*labels.values()), series, strict=False))
        registry.register(self)

    def labels(self, *values: str) -> T:
        """The series with these values of the labels."""
        found = self._series.get(values)
        return self._series[(OTHER,)] if found is None else found


class Counts(_Family[Count]):
    """A counter, or a gauge that one process sets.

    Args:
        registry: where it is registered.
        counters: where its values stand.
        kind: of the family it is exposed as.
        name, text: as in the page of metrics.
        labels: see `Labels`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        counters: SharedCounters,
        kind: type[CounterMetricFamily | GaugeMetricFamily],
        name: str,
        text: str,
        labels: Labels,
    ) -> None:
        self._kind = kind
        self._described = name, text
        super().__init__(registry, labels, (Count(counters.floats(name, 1)) for _ in itertools.count()))

    def describe(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """The family, without its values."""
        return [self._kind(*self._described, labels=self._names)]

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """The family with the values of now."""
        family = self._kind(*self._described, labels=self._names)
        for values, count in self._series.items():
            family.add_metric(values, count.total())
        return [family]


class Durations(_Family[Duration]):
    """A histogram of seconds.

    Args:
        registry, counters, name, text, labels: see `Counts`.
        buckets_s: the upper bounds, in seconds.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        counters: SharedCounters,
        name: str,
        text: str,
        labels: Labels,
        buckets_s: tuple[float, ...],
    ) -> None:
        self._described = name, text
        cells = (counters.floats(name, len(buckets_s) + 2) for _ in itertools.count())
        super().__init__(registry, labels, (Duration(each, buckets_s) for each in cells))

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """The family, without its values."""
        return [HistogramMetricFamily(*self._described, labels=self._names)]

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The family with the values of now."""
        family = HistogramMetricFamily(*self._described, labels=self._names)
        for values, duration in self._series.items():
            buckets, sum_s = duration.totals()
            family.add_metric(values, buckets, sum_s)
        return [family]
