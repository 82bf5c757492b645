"""Training and held-out rows."""

import random
from collections.abc import Sequence
from typing import TypeVar

from swiftlite.args.groups import DataArgs
from swiftlite.data.rows import Drops, Row, load_rows, names

T = TypeVar('T')


def held_out(rows: Sequence[T], ratio: float, seed: int) -> tuple[list[T], list[T]]:
    """(training rows, held-out rows): a random share of at least one row where the ratio is above 0.

    Both parts keep the order of `rows`; a single row is never held out.
    """
    count = min(max(1, round(len(rows) * ratio)), len(rows) - 1) if ratio > 0 and len(rows) > 1 else 0
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    return [row for i, row in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]


def read_split(args: DataArgs, *, answered: bool = True) -> tuple[list[Row], list[Row], tuple[Drops, Drops]]:
    """(training rows, held-out rows, what was dropped while reading either).

    The held-out rows are --val_dataset, or a share of --dataset: the same rows for the same arguments. With `answered`
    off, those of --val_dataset need no answer.
    """
    who = names(args.model_name, args.model_author)
    drops = Drops(), Drops()
    rows = load_rows(args.dataset, who, args.dataset_seed, drops[0])
    if args.val_dataset:
        return rows, load_rows(args.val_dataset, who, args.dataset_seed, drops[1], answered=answered), drops
    return *held_out(rows, args.dataset_test_ratio, args.dataset_seed), drops
