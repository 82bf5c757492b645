"""A Prometheus histogram of what happens too often to pay for one of the library's: thousands of times a second."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class GapTimes(Collector):
    """Counts seconds by their range; for one thread. `bounds`: the largest value of each range but the last."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], labels: Sequence[str], values: Sequence[str]):
        self._name, self._text = name, text
        self._bounds = tuple(bounds)
        self._labels, self._values = labels, values
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += times
        self._sum += seconds * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        names = [*map(str, self._bounds), '+Inf']
        buckets = [[name, float(count)] for name, count in zip(names, accumulate(self._counts), strict=True)]
        family.add_metric(self._values, buckets, self._sum)  # type: ignore[arg-type]
        yield family
