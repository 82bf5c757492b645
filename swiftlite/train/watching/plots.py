"""Curves of a run as pictures: every value of logging.jsonl, raw and smoothed."""

import json
from pathlib import Path

SMOOTHING = 0.9
WANTED = ('loss', 'token_acc', 'grad_norm', 'learning_rate', 'tokens/s', 'mfu', 'eval_loss', 'eval_token_acc')


def read_series(log: Path) -> dict[str, list[tuple[int, float]]]:
    """Name -> [(step, value), ...] of a logging.jsonl, train values as 'train_<name>'."""
    series: dict[str, list[tuple[int, float]]] = {}
    for line in log.read_text(encoding='utf-8').splitlines():
        entry = json.loads(line)
        if 'global_step/max_steps' not in entry:
            continue
        step = int(entry['global_step/max_steps'].split('/')[0])
        for name in WANTED:
            if isinstance(entry.get(name), int | float):
                shown = name.replace('/s', '_per_second')
                title = shown if name.startswith('eval_') else f'train_{shown}'
                series.setdefault(title, []).append((step, entry[name]))
    return series


def smooth(values: list[float], weight: float = SMOOTHING) -> list[float]:
    """Exponential moving average with bias correction, as TensorBoard draws it."""
    smoothed, last = [], 0.0
    for number, value in enumerate(values, 1):
        last = last * weight + value * (1 - weight)
        smoothed.append(last / (1 - weight**number))
    return smoothed


def draw(log: Path, folder: Path) -> list[Path]:
    """Write one picture a series into `folder`; returns the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, points in read_series(log).items():
        steps, values = [step for step, _ in points], [value for _, value in points]
        figure = Figure(figsize=(7, 4.5), layout='constrained')
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.plot(steps, values, color='#f2a65a', linewidth=1, label='raw', marker='.' if len(steps) == 1 else None)
        if 'learning_rate' not in name:
            axes.plot(steps, smooth(values), color='#b5541c', linewidth=2, label=f'average ({SMOOTHING})')
            axes.legend()
        axes.set(title=name, xlabel='step')
        axes.grid(alpha=0.3)
        files.append(folder / f'{name}.png')
        figure.savefig(files[-1], dpi=110)
    return files
