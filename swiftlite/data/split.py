"""Training and held-out rows."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from swiftlite.args.groups import DataArgs
from swiftlite.data.rows import Drops, Part, Row, load_parts, load_rows, names

T = TypeVar('T')


def held_out(rows: Sequence[T], ratio: float, seed: int) -> tuple[list[T], list[T]]:
    """(training rows, held-out rows): a random share of at least one row where the ratio is above 0.

    Both parts keep the order of `rows`; a single row is never held out.
    """
    count = min(max(1, round(len(rows) * ratio)), len(rows) - 1) if ratio > 0 and len(rows) > 1 else 0
    chosen = set(random.Random(seed).sample(range(len(rows)), count))
    return [row for i, row in enumerate(rows) if i not in chosen], [rows[i] for i in sorted(chosen)]


@dataclass(frozen=True)
class Split:
    """Rows to train on, a part for each value of --dataset, those that are held out, and what was dropped of either."""

    parts: list[Part]
    held_out: list[Row]
    drops: Drops
    held_out_drops: Drops


def split_parts(parts: Sequence[Part], ratio: float, seed: int) -> tuple[list[Part], list[Row]]:
    """(parts to train on, held-out rows), where no training row says the same as a held-out one.

    The share is one of the distinct rows, each held out once. What is wanted of a part is less by what was taken of it,
    so that rows come several times only after that.
    """
    if ratio <= 0:
        return list(parts), []
    distinct = list({row.key: row for part in parts for row in part.rows}.values())
    _, held = held_out(distinct, ratio, seed)
    keys = {row.key for row in held}
    training = []
    for part in parts:
        left = [row for row in part.rows if row.key not in keys]
        training.append(Part(left, max(part.count - (len(part.rows) - len(left)), 0)))
    return training, held


def read_split(args: DataArgs, *, training: bool = True, answered: bool = True, strict: bool = False) -> Split:
    """The rows that `args` names.

    The held-out rows are --val_dataset, or a share of --dataset: the same rows for the same arguments. With `answered`
    off, those of --val_dataset need no answer; with `training` off, no others are read where there are any.

    Raises:
        SwiftliteError: with `strict`, a row cannot be read.
    """
    who = names(args.model_name, args.model_author)
    drops = Drops(strict=strict), Drops(strict=strict)
    if args.val_dataset:
        parts = load_parts(args.dataset if training else [], who, args.dataset_seed, drops[0])
        held = load_rows(args.val_dataset, who, args.dataset_seed, drops[1], answered=answered)
    else:
        parts = load_parts(args.dataset, who, args.dataset_seed, drops[0])
        parts, held = split_parts(parts, args.dataset_test_ratio, args.dataset_seed)
    return Split(parts, held, *drops)
