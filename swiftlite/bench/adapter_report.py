"""What `bench adapters` found, as sentences, tables, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .load import Load
from .report import percentile, show, spread
from .workload import Request

PARTS = {  # of memory() → what the picture calls it
    'gpu_allocated_gib': 'tensors on the GPU',
    'pool_gib': 'pools of adapters',
    'rss_gib': 'process',
    'copies_gib': 'copies of adapters',
}


@dataclass
class Point:
    """A measurement with so many adapters. reads, uploads: of adapters, during the requests that came all at once."""

    adapters: int
    name: str  # base, LoRA off, warm or cold
    distinct: int  # adapters that requests asked for
    seconds: float  # for all requests at once
    output_tokens: int
    memory: dict[str, float | None]
    on_device: int
    in_memory: int
    reads: int
    uploads: int
    load: Load | None = field(default=None)  # requests that arrived over time

    @property
    def speed(self) -> float:
        """Output tokens a second."""
        return self.output_tokens / self.seconds

    @property
    def first_tokens(self) -> list[float]:
        """Seconds to the first token of those that arrived."""
        return [row.ttft for row in self.load.rows if row.ttft is not None] if self.load else []

    @property
    def gaps(self) -> list[float]:
        """Seconds between their tokens."""
        return [gap for row in self.load.rows for gap in row.gaps] if self.load else []


def said(point: Point) -> str:
    """A line as soon as a measurement is done."""
    times = f', first token after {_ms(point.first_tokens, 50)} ms (p99 {_ms(point.first_tokens, 99)})'
    return f'{title(point)}: {point.speed:,.0f} output tokens/s{times if point.load else ""}'


def title(point: Point) -> str:
    return f'{point.adapters:,} adapters, {point.name}' if point.adapters else point.name


def result(point: Point, base: Point, requests: Sequence[Request]) -> dict[str, Any]:
    """As a JSON line."""
    found: dict[str, Any] = {
        'kind': 'adapters',
        'adapters': point.adapters,
        'pass': point.name,
        'adapters_asked_for': point.distinct,
        'requests': len(requests),
        'input_tokens': sum(len(r.prompt) for r in requests),
        'output_tokens': point.output_tokens,
        'seconds': round(point.seconds, 4),
        'output_tokens_per_second': round(point.speed, 1),
        'share_of_base': round(base.seconds / point.seconds, 4),
    }
    if point.load is not None:
        found |= {'ttft_ms': spread(point.first_tokens), 'itl_ms': spread(point.gaps)}
    found |= {'adapters_on_device': point.on_device, 'adapters_in_memory': point.in_memory}
    return found | {'adapter_reads': point.reads, 'adapter_uploads': point.uploads} | point.memory


def table(points: Sequence[Point]) -> None:
    """Three on the terminal: speed, where the adapters were, and memory."""
    rows = []
    for p in points:
        times = [_ms(values, point) for values in (p.first_tokens, p.gaps) for point in (50, 99)]
        rows.append([f'{p.speed:,.0f}', f'{points[0].seconds / p.seconds:.1%}', *times])
    _show(points, ['output tok/s', 'of base', 'TTFT p50 ms', 'p99', 'ITL p50 ms', 'p99'], rows)
    rows = [[f'{n:,}' for n in (p.distinct, p.reads, p.uploads, p.on_device, p.in_memory)] for p in points]
    _show(points, ['asked for', 'read', 'uploaded', 'on device', 'in memory'], rows)
    rows = [[_gib(p.memory[part]) for part in ('gpu_taken_gib', *PARTS)] for p in points]
    _show(points, ['GPU GiB', 'tensors', 'pools', 'process GiB', 'copies'], rows)


def _show(points: Sequence[Point], headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    named = [[f'{p.adapters:,}', p.name, *row] for p, row in zip(points, rows, strict=True)]
    show(['adapters', 'pass', *headers], named, texts=2)


def plot(path: str, results: Sequence[dict[str, Any]]) -> None:
    """Throughput, time to first token and memory against the number of adapters, side by side.

    results: lines of --output, too.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    results = [r for r in results if r['kind'] == 'adapters']
    figure = Figure(figsize=(14, 4.2), layout='constrained')
    FigureCanvasAgg(figure)
    figure.suptitle(f'{results[0]["model"]}, LoRA of rank {", ".join(map(str, results[0]["lora_rank"]))}')
    speed, first, memory = figure.subplots(1, 3)
    for r in results:
        if not r['adapters']:
            speed.axhline(
                r['share_of_base'], linestyle=':', color='gray' if r['pass'] == 'base' else 'C3', label=r['pass']
            )
    for color, point in enumerate(('p50', 'p99')):
        if 'ttft_ms' in results[0]:
            first.axhline(results[0]['ttft_ms'][point], linestyle=':', color=f'C{color}', label=f'base, {point}')
    for name in ('cold', 'warm'):
        line = sorted((r for r in results if r['pass'] == name), key=lambda r: r['adapters'])
        _line(speed, line, [r['share_of_base'] for r in line], name)
        timed = [r for r in line if 'ttft_ms' in r]
        for color, point in enumerate(('p50', 'p99')):
            _line(first, timed, [r['ttft_ms'][point] for r in timed], f'{name}, {point}', color=f'C{color}')
    warm = sorted((r for r in results if r['pass'] == 'warm'), key=lambda r: r['adapters'])
    for part, text in PARTS.items():
        known = [r for r in warm if r[part] is not None]
        _line(memory, known, [r[part] for r in known], text)
    first.set_ylim(bottom=0)
    memory.set_yscale('log')  # the KV cache takes most of a GPU
    speed.set_ylim(0, 1.1 * max(r['share_of_base'] for r in results))
    counts = sorted({r['adapters'] for r in results if r['adapters']})
    for axes, text in ((speed, 'throughput, share of base'), (first, 'time to first token, ms'), (memory, 'GiB')):
        axes.set(title=text, xlabel='adapters', xscale='log')
        axes.set_xticks(counts, [f'{count:,}' for count in counts])
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(Path(path).expanduser(), dpi=120)


def _line(axes: Any, results: Sequence[dict[str, Any]], values: Sequence[float], label: str, **style: Any) -> None:
    if results:
        axes.plot([r['adapters'] for r in results], values, marker='o', label=label, **style)


def _ms(seconds: Sequence[float], point: float) -> str:
    return f'{percentile(seconds, point) * 1e3:,.1f}' if seconds else ''


def _gib(value: float | None) -> str:
    return '' if value is None else f'{value:.2f}'
