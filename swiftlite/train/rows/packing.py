"""Packs: short rows side by side in one long one, so that every step trains about the same number of tokens."""

from bisect import bisect_left, insort
from collections import defaultdict
from typing import Any

import numpy as np

from swiftlite.args.sft import SftArgs
from swiftlite.train.rows.encoded import EncodedRows
from swiftlite.train.scale.ranks import say


class PackedRows:
    """Rows grouped into packs of at most `capacity` tokens; item i is the list of rows of pack i.

    Which rows share a pack is fixed by `seed`; a row longer than `capacity` has a pack of its own.
    """

    def __init__(self, rows: EncodedRows, capacity: int, seed: int):
        self.rows, self.capacity = rows, capacity
        lengths = rows.lengths
        self.members, self.offsets = best_fit_decreasing(lengths, capacity, np.random.default_rng(seed))
        self.lengths = np.add.reduceat(lengths[self.members], self.offsets[:-1])  # [packs] tokens

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> list[Any]:
        return [self.rows[i] for i in self.members[self.offsets[index] : self.offsets[index + 1]]]

    def line(self, title: str) -> str:
        """What is printed before training."""
        fill = self.lengths.sum() / (len(self) * self.capacity)
        line = f'{title}: {len(self.rows):,} rows in {len(self):,} packs of {self.capacity:,} tokens, {fill:.1%} filled'
        longer = int((self.lengths > self.capacity).sum())
        return line + (f' ({longer} of one longer row)' if longer else '')


Rows = EncodedRows | PackedRows


def pack(args: SftArgs, train: EncodedRows, held_out: EncodedRows | None) -> tuple[PackedRows, PackedRows | None]:
    """Training and held-out rows in packs of --packing_length; says how full they are."""
    packed = pack_rows(args, train, 'training data')
    return packed, None if held_out is None else pack_rows(args, held_out, 'held-out data')


def pack_rows(args: SftArgs, rows: EncodedRows, title: str) -> PackedRows:
    """One of the two."""
    assert args.packing_length is not None
    packed = PackedRows(rows, args.packing_length, args.seed)
    say(packed.line(title))
    return packed


def best_fit_decreasing(lengths: np.ndarray, capacity: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(rows pack after pack [rows], start of each pack [packs + 1]) with little left free in the packs.

    Rows from long to short, each into the pack where it leaves the least space: at most 11/9 of the fewest packs
    possible, and one (Johnson, Near-optimal bin packing algorithms, MIT 1973). Rows of one length are taken together,
    in random order: a pack that fits best for one of them does so until it is full, so packs with equal space are
    filled alike and in one go.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind='stable')]
    descending = lengths[order]
    starts = np.flatnonzero(np.diff(descending, prepend=-1)).tolist()
    pack_of = np.empty(len(order), dtype=np.int64)
    spaces: list[int] = []  # of packs that are not full, ascending
    packs: dict[int, list[int]] = defaultdict(list)  # space -> packs that have it
    count = 0
    for row, end in zip(starts, [*starts[1:], len(order)], strict=True):
        length = int(descending[row])
        while row < end:
            best = bisect_left(spaces, length)
            space = spaces[best] if best < len(spaces) else capacity
            each = max(space // max(length, 1), 1)  # rows that one pack takes
            wanted = -(-(end - row) // each)
            if best < len(spaces):
                there = packs[space]
                taken = there[-wanted:]
                del there[-wanted:]
                if not there:
                    del spaces[best], packs[space]
            else:
                taken = list(range(count, count + wanted))
                count += wanted
            rows = min(len(taken) * each, end - row)
            pack_of[row : row + rows] = taken if each == 1 else np.repeat(taken, each)[:rows]
            row += rows
            full, rest = divmod(rows, each)
            for left, group in ((space - each * length, taken[:full]), (space - rest * length, taken[full:])):
                if group and left > 0:
                    if left not in packs:
                        insort(spaces, left)
                    packs[left].extend(group)
    members = order[np.argsort(pack_of, kind='stable')]
    return members, np.concatenate([[0], np.cumsum(np.bincount(pack_of, minlength=count))])
