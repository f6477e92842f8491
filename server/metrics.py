"""What the server counts, and how Prometheus reads it.

Counting is a dictionary entry; the families are built by prometheus-client only when somebody scrapes.
Labels are route templates, configured names and our own codes: never a key, a path, an id or user text.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client.core import Metric

BUCKETS_S = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OVERHEAD_BUCKETS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5)
# Codes of errors may be an upstream's own words; so many are told apart, and none that is no plain word.
MAX_CODES = 200
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,63}")
OTHER = "other"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Distribution:
    """Counts in buckets, and a sum. Seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as Prometheus wants them."""
        made, running = [], 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            running += count
            made.append(("+Inf" if bound is None else repr(bound), float(running)))
        return made


class Metrics:
    """The counters of one process. ``gauges`` are asked at each scrape: name → (help, function)."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, str]] = Counter()  # route, method, status
        self.errors: Counter[str] = Counter()  # code
        self.attempts: Counter[tuple[str, str]] = Counter()  # channel, "ok" or a code
        self.skipped: Counter[str] = Counter()  # channel
        self.tokens: Counter[tuple[str, str]] = Counter()  # model, prompt or completion
        self.lookups: Counter[str] = Counter()  # hit, shared, miss or bypass
        self.gone = 0
        self.in_flight = 0
        self.first_token: dict[str, Distribution] = {}  # model
        self.overhead = Distribution(OVERHEAD_BUCKETS_S)
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.channel_states: Callable[[], Iterable[tuple[str, str, str]]] = tuple  # channel, model, state
        self._codes: set[str] = set()

    def failed(self, code: str) -> None:
        """Count an error that a client was told."""
        self.errors[self._label(code)] += 1

    def attempted(self, channel: str, outcome: str) -> None:
        """Count a call to a channel; ``outcome`` is ``ok`` or an error's code."""
        self.attempts[channel, self._label(outcome)] += 1

    def looked_up(self, outcome: str) -> None:
        """Count what the response cache did for a call."""
        self.lookups[outcome] += 1

    def first_token_after(self, model: str, seconds: float) -> None:
        """Count one time to the first token."""
        if (kept := self.first_token.get(model)) is None:
            kept = self.first_token[model] = Distribution(BUCKETS_S)
        kept.add(seconds)

    def _label(self, code: str) -> str:
        if code not in self._codes:
            if len(self._codes) >= MAX_CODES or not _CODE.fullmatch(code):
                return OTHER
            self._codes.add(code)
        return code

    def render(self) -> bytes:
        """Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Collector(self))
        return generate_latest(registry)

    def families(self) -> Iterator[Metric]:
        """All metric families, as prometheus-client shapes them."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        def counted(name: str, text: str, labels: str, counts: Mapping[Any, float]) -> Metric:
            family = CounterMetricFamily(f"antiphon_{name}", text, labels=labels.split())
            for values, count in counts.items():
                family.add_metric((values,) if isinstance(values, str) else values, count)
            return family

        yield counted("requests", "Requests answered.", "route method status", self.requests)
        yield counted("errors", "Errors told to clients, by code.", "code", self.errors)
        yield counted("upstream_attempts", "Calls to channels, by outcome.", "channel outcome", self.attempts)
        text = "Events, lines and parts of channels' answers that nobody here knows, passed over."
        yield counted("upstream_skipped", text, "channel", self.skipped)
        yield counted("tokens", "Tokens used.", "model kind", self.tokens)
        if self.lookups:
            text = "What the response cache did for calls."
            yield counted("cache_lookups", text, "outcome", self.lookups)
        yield CounterMetricFamily("antiphon_clients_gone", "Clients that left early.", value=self.gone)
        yield GaugeMetricFamily("antiphon_requests_in_flight", "Requests under way.", value=self.in_flight)
        for name, (help_text, value) in self.gauges.items():
            yield GaugeMetricFamily(f"antiphon_{name}", help_text, value=value())
        states = GaugeMetricFamily(
            "antiphon_channel_state",
            "1 for the state that a channel is in for a model.",
            labels=["channel", "model", "state"],
        )
        for labels in self.channel_states():
            states.add_metric(labels, 1)
        yield states
        first = HistogramMetricFamily(
            "antiphon_first_token_seconds", "Time to the first token.", labels=["model"]
        )
        for model, kept in self.first_token.items():
            first.add_metric((model,), kept.buckets(), kept.total)
        yield first
        overhead = HistogramMetricFamily("antiphon_overhead_seconds", "Our own time up to the first byte.")
        overhead.add_metric((), self.overhead.buckets(), self.overhead.total)
        yield overhead


class _Collector:
    """What prometheus-client asks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        return self._metrics.families()
