"""Distributions of TTFT and of the gaps between tokens, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .load import Load


def check() -> None:
    """UsageError where there is nothing to draw with."""
    if find_spec('matplotlib') is None:
        raise UsageError("--plot needs matplotlib: pip install 'swiftlite[plots]', or leave it out")


def write(path: str, loads: dict[str, Load]) -> None:
    """Two pictures side by side in a file: the share of requests and of gaps that are at most so long."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout='constrained')
    for name, load in loads.items():
        _curve(left, name, [row.ttft for row in load.rows if row.ttft is not None])
        _curve(right, name, [gap for row in load.rows for gap in row.gaps])
    for axes, title in ((left, 'time to first token'), (right, 'between tokens')):
        axes.set(title=title, xlabel='milliseconds', ylabel='share', ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.savefig(Path(path).expanduser(), dpi=120)
    pyplot.close(figure)


def _curve(axes: Any, name: str, seconds: Sequence[float]) -> None:
    if not seconds:
        return
    ordered = sorted(seconds)
    shares = [(index + 1) / len(ordered) for index in range(len(ordered))]
    axes.step([value * 1e3 for value in ordered], shares, where='post', label=name)
