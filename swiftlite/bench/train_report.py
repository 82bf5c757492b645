"""What `bench train` found, as sentences, a table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..args.bench_train import TrainBenchArgs
from .plot import check as check_plot
from .report import show

if TYPE_CHECKING:
    from .train import Case

__all__ = ['check_plot', 'describe', 'plot', 'result', 'said', 'table']


def describe(args: TrainBenchArgs, model: str, lengths: np.ndarray, device: str) -> str:
    """The first line: what is trained on what."""
    tuner = (
        'all weights' if args.sft_type == 'full' else f'LoRA r={args.lora_rank} on {" ".join(args.lora_target_modules)}'
    )
    points = ', '.join(f'p{p} {int(np.percentile(lengths, p, method="nearest"))}' for p in (10, 50, 90, 99))
    return (
        f'{model}, {tuner}, {args.batch_size} x {args.gradient_accumulation_steps} rows a step and device, '
        f'{lengths.mean():.0f} tokens a row ({points}, max {lengths.max()}), on {device}'
    )


def title(case: Case) -> str:
    """'swiftlite, packing' of a case; a switch that is off as 'no packing'."""
    words = [f'{"" if value else "no "}{name.replace("gradient_", "")}' for name, value in case.switches.items()]
    return ', '.join([case.engine, *words])


def said(case: Case) -> str:
    """A line as soon as a case is measured."""
    if case.failed:
        return f'{title(case)}: {case.failed}'
    memory = '' if case.peak_gib is None else f', {case.peak_gib:.1f} GiB'
    losses = f'loss {case.losses[0]:.4f} → {case.losses[-1]:.4f}'
    return f'{title(case)}: {case.tokens / case.seconds:,.0f} tokens/s{memory}, {losses}'


def result(case: Case, cases: Sequence[Case]) -> dict[str, Any]:
    """A case as a JSON line, beside the measurement of transformers with the same gradient checkpointing."""
    args = case.args
    found: dict[str, Any] = {
        'kind': 'train',
        'engine': case.engine,
        'switches': case.switches,
        'sft_type': args.sft_type,
        'batch_size': args.batch_size,
        'accumulation': args.gradient_accumulation_steps,
        'lora_rank': args.lora_rank,
        'lora_dropout': args.lora_dropout,
        'warmups': case.warmups,
        'steps': args.max_steps - case.warmups,
    }
    if case.failed:
        return found | {'failed': case.failed}
    found |= {
        'seconds': round(case.seconds, 4),
        'tokens': case.tokens,
        'tokens_per_second': round(case.tokens / case.seconds, 1),
        'peak_gib': _rounded(case.peak_gib),
        'reserved_gib': _rounded(case.reserved_gib),
        'mfu': _rounded(case.mfu, 4),
        'losses': [round(loss, 6) for loss in case.losses],
    }
    plain = yardstick(case, cases)
    if plain is not None and not plain.failed:
        found['faster_by'] = round(case.tokens / case.seconds / (plain.tokens / plain.seconds), 3)
        if case.peak_gib and plain.peak_gib:
            found['share_of_memory'] = round(case.peak_gib / plain.peak_gib, 3)
        if not args.packing:  # packs make other steps
            gaps = [abs(a - b) for a, b in zip(case.losses, plain.losses, strict=True)]
            found['largest_loss_difference'] = float(f'{max(gaps):.3g}')
    return found


def yardstick(case: Case, cases: Sequence[Case]) -> Case | None:
    """transformers' measurement that a case of ours is compared with."""
    if case.engine == 'transformers':
        return None
    name = 'gradient_checkpointing'
    alike = (c for c in cases if c.engine == 'transformers' and c.switches.get(name) == case.switches.get(name))
    return next(alike, None)


def table(results: Sequence[dict[str, Any]]) -> None:
    """On the terminal."""
    headers = ('engine', 'switches', 'tokens/s', 'peak GiB', 'MFU', 'is faster by', 'of memory', 'losses differ by')
    rows = []
    for r in results:
        switches = ', '.join(f'{name} {str(value).lower()}' for name, value in r['switches'].items())
        if 'failed' in r:
            rows.append([r['engine'], switches, r['failed'], *[''] * 5])
            continue
        cells = [f'{r["tokens_per_second"]:,.0f}', _cell(r, 'peak_gib', '.1f'), _cell(r, 'mfu', '.1%')]
        cells += [_cell(r, 'faster_by', '.2f', ' x'), _cell(r, 'share_of_memory', '.0%')]
        rows.append([r['engine'], switches, *cells, _cell(r, 'largest_loss_difference', '.2g')])
    if rows:
        show(headers, rows, texts=2)


def plot(path: str, cases: Sequence[Case]) -> None:
    """The losses of all cases over the steps, in one picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for case in cases:
        if case.losses:
            dashed = '--' if case.engine == 'transformers' else '-'
            axes.plot(range(1, len(case.losses) + 1), case.losses, dashed, label=title(case))
    axes.set(title='training loss', xlabel='step')
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(Path(path).expanduser(), dpi=120)


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)


def _cell(row: dict[str, Any], name: str, form: str, unit: str = '') -> str:
    return '' if row.get(name) is None else f'{row[name]:{form}}{unit}'
