"""Prometheus metrics under vLLM's names, in a registry of their own."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from swiftlite.engine.outputs import RequestOutput
from swiftlite.serve.gap_times import GapTimes

LABELS = ('model_name', 'engine')
LATENCY = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
REQUEST_LATENCY = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0)
TOKENS = tuple(scale * 10**power for power in range(6) for scale in (1, 2, 5))
# metric → key of AsyncEngine.stats()
GAUGES = {
    'vllm:num_requests_running': ('num_running', 'Requests in the running batch.'),
    'vllm:num_requests_waiting': ('num_waiting', 'Requests that wait to be scheduled.'),
    'swiftlite:adapters': ('adapters', 'Adapters that are loaded.'),
    'swiftlite:adapters_on_device': ('adapters_on_device', 'Adapters in the rank pages of the device.'),
    'swiftlite:adapters_in_memory': ('adapters_in_memory', 'Adapters with a copy in host memory.'),
}
COUNTERS = {
    'vllm:prefix_cache_queries': ('prefix_queries', 'Prompt tokens looked up in the prefix cache.'),
    'vllm:prefix_cache_hits': ('prefix_hits', 'Prompt tokens found in the prefix cache.'),
    'vllm:num_preemptions': ('num_preemptions', 'Requests that were preempted.'),
    'swiftlite:adapter_reads': ('adapter_reads', 'Adapters read from disk.'),
    'swiftlite:adapter_uploads': ('adapter_uploads', 'Adapters copied to the device.'),
}
ADAPTER = ('model_name', 'lora_name')


class Metrics:
    """Metrics of one served model; `sequence` watches one generation, `render` adds what the engine counts."""

    def __init__(self, model_name: str) -> None:
        self.registry = CollectorRegistry()
        self._labels = (model_name, '0')
        self._gauges = {name: self._gauge(name, text) for name, (_, text) in GAUGES.items()}
        self._cache_usage = self._gauge('vllm:kv_cache_usage_perc', 'Share of the KV cache in use; 1 is all of it.')
        self._engine_counters = {name: self._counter(name, text) for name, (_, text) in COUNTERS.items()}
        self._seen = dict.fromkeys(COUNTERS, 0)
        self.prompt_tokens = self._counter('vllm:prompt_tokens', 'Prompt tokens of started requests.')
        self.generated = 0  # tokens since the last `render`
        self._generation_tokens = self._counter('vllm:generation_tokens', 'Generated tokens.')
        self.first_token = self._histogram('vllm:time_to_first_token_seconds', 'Time to the first token.', LATENCY)
        self.inter_token = GapTimes(
            'vllm:inter_token_latency_seconds', 'Time between two tokens.', LATENCY, LABELS, self._labels
        )
        self.registry.register(self.inter_token)
        self.end_to_end = self._histogram(
            'vllm:e2e_request_latency_seconds', 'Time from the request to its last token.', REQUEST_LATENCY
        )
        self.output_token = self._histogram(
            'vllm:request_time_per_output_token_seconds', 'Mean time of a request between its tokens.', LATENCY
        )
        self.request_prompt = self._histogram('vllm:request_prompt_tokens', 'Prompt tokens of a request.', TOKENS)
        self.request_generation = self._histogram(
            'vllm:request_generation_tokens', 'Generated tokens of a request.', TOKENS
        )
        self._success = Counter(
            'vllm:request_success', 'Finished requests.', (*LABELS, 'finished_reason'), registry=self.registry
        )
        self._lora_info = Gauge(
            'vllm:lora_requests_info',
            'Adapters that requests run on and wait for; the value is the time.',
            ('max_lora', 'waiting_lora_adapters', 'running_lora_adapters'),
            registry=self.registry,
        )
        self._lora_counters = [
            Counter(f'swiftlite:lora_{name}', f'{text} of an adapter.', ADAPTER, registry=self.registry)
            for name, text in (
                ('requests', 'Started sequences'),
                ('prompt_tokens', 'Prompt tokens'),
                ('generation_tokens', 'Generated tokens'),
            )
        ]

    def sequence(self, prompt_tokens: int, lora: str | None = None) -> SequenceWatch:
        """Watch a sequence of the base, or of an adapter."""
        self.prompt_tokens.inc(prompt_tokens)
        generated = None
        if lora is not None:
            requests, prompts, generated = (counter.labels(self._labels[0], lora) for counter in self._lora_counters)
            requests.inc()
            prompts.inc(prompt_tokens)
        return SequenceWatch(self, prompt_tokens, generated)

    def forget(self, lora: str) -> None:
        """An adapter was unloaded: its counters end."""
        for counter in self._lora_counters:
            with contextlib.suppress(KeyError):  # nobody has used it
                counter.remove(self._labels[0], lora)

    def finished(self, reason: str) -> None:
        self._success.labels(*self._labels, reason).inc()

    def render(self, stats: dict[str, Any] | None) -> bytes:
        """The text of /metrics. `stats`: AsyncEngine.stats(), {} without an engine; None: those of the last time."""
        if stats is not None:
            self._take(stats)
        self._generation_tokens.inc(self.generated)
        self.generated = 0
        return generate_latest(self.registry)

    def _take(self, stats: dict[str, Any]) -> None:
        """What the engine counts; its counters only grow, and a restart begins at 0."""
        for name, (key, _) in GAUGES.items():
            self._gauges[name].set(stats.get(key, 0))
        self._cache_usage.set(stats.get('blocks_used', 0) / max(1, stats.get('blocks_total', 1)))
        for name, (key, _) in COUNTERS.items():
            value = stats.get(key, 0)
            self._engine_counters[name].inc(value - self._seen[name] if value >= self._seen[name] else value)
            self._seen[name] = value
        self._lora_info.clear()
        if stats.get('max_adapters'):
            names = (','.join(stats[f'{state}_adapters']) for state in ('waiting', 'running'))
            self._lora_info.labels(stats['max_adapters'], *names).set_to_current_time()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, LABELS, registry=self.registry).labels(*self._labels)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, LABELS, registry=self.registry).labels(*self._labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, LABELS, buckets=buckets, registry=self.registry).labels(*self._labels)


class SequenceWatch:
    """Takes the times of one generation."""

    def __init__(self, metrics: Metrics, prompt_tokens: int, lora_tokens: Counter | None) -> None:
        """lora_tokens: counts those of the adapter as well."""
        self._metrics, self._lora_tokens = metrics, lora_tokens
        self._prompt_tokens = prompt_tokens
        self._tokens = 0
        self._first = 0.0
        self._start = time.perf_counter()
        self._last = 0.0

    def step(self, output: RequestOutput) -> None:
        now = time.perf_counter()
        tokens = len(output.outputs[0].token_ids)
        if tokens:
            self._metrics.generated += tokens
            if self._lora_tokens is not None:
                self._lora_tokens.inc(tokens)
            if self._last:
                self._metrics.inter_token.observe((now - self._last) / tokens, tokens)
            else:
                self._metrics.first_token.observe(now - self._start)
                self._first = now
            self._last = now
            self._tokens += tokens
        if output.finished:
            self._metrics.end_to_end.observe(now - self._start)
            self._metrics.request_prompt.observe(self._prompt_tokens)
            self._metrics.request_generation.observe(self._tokens)
            if self._tokens > 1:
                self._metrics.output_token.observe((self._last - self._first) / (self._tokens - 1))
            self._metrics.finished(output.outputs[0].finish_reason or 'stop')
