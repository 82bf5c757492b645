"""What a measurement says, on the terminal and as JSON lines."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

POINTS = (50, 90, 99)
WIDE = 200  # columns of a file or a pipe


class Lines:
    """JSON objects, one a line, printed and written to --output as soon as they are known."""

    def __init__(self, output: str | None) -> None:
        self._path = Path(output).expanduser() if output else None
        if self._path is not None:
            self._path.write_text('', encoding='utf-8')

    def add(self, line: dict[str, Any], rows: list[dict[str, Any]] | None = None) -> None:
        """Print a line; the file gets `rows`, too."""
        print(json.dumps(line, ensure_ascii=False), flush=True)
        if self._path is not None:
            whole = line if rows is None else line | {'rows': rows}
            with self._path.open('a', encoding='utf-8') as file:
                file.write(json.dumps(whole, ensure_ascii=False) + '\n')


def show(headers: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> None:
    """A table on the terminal, without empty columns; the first ones are texts, the others numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    used = [index for index in range(len(headers)) if any(row[index] for row in rows)]
    for index in used:
        if index < texts:
            table.add_column(headers[index], overflow='fold')
        else:  # a number is never cut
            table.add_column(headers[index], justify='right', min_width=max(len(row[index]) for row in rows))
    for row in rows:
        table.add_row(*(row[index] for index in used))
    console = Console()
    if not console.is_terminal and 'COLUMNS' not in os.environ:
        console = Console(width=WIDE)
    console.print(table)


def percentile(values: Sequence[float], point: float) -> float:
    """Between the two values next to it, as numpy does it; nan of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = (len(ordered) - 1) * point / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Mean, percentiles and largest of times, in milliseconds; None where there are none."""
    if not seconds:
        return dict.fromkeys(('mean', *(f'p{point}' for point in POINTS), 'max'))
    found = {'mean': sum(seconds) / len(seconds), **{f'p{p}': percentile(seconds, p) for p in POINTS}}
    return {name: round(value * 1e3, 3) for name, value in (found | {'max': max(seconds)}).items()}


def show_spreads(spreads: dict[str, dict[str, float | None]]) -> None:
    """A table of `spread`s by what they are about."""
    columns = ('mean', *(f'p{point}' for point in POINTS), 'max')
    rows = [[name, *(_short(each[column]) for column in columns)] for name, each in spreads.items()]
    show(['milliseconds', *columns], rows)


def _short(value: float | None) -> str:
    if value is None:
        return '–'
    return f'{value:.2f}' if value < 100 else f'{value:,.1f}' if value < 1000 else f'{value:,.0f}'
