"""The held-out part of the data."""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar('T')


def held_out(rows: Sequence[T], ratio: float, seed: int) -> tuple[list[T], list[T]]:
    """(training rows, held-out rows): a random share of at least one row where the ratio is above 0.

    Both parts keep the order of `rows`; a single row is never held out.
    """
    count = min(max(1, round(len(rows) * ratio)), len(rows) - 1) if ratio > 0 and len(rows) > 1 else 0
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    return [row for i, row in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]
