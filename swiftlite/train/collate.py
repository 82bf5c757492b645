"""Batches: rows padded on the right, and the positions that carry the loss; sampling by length."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from swiftlite.template import IGNORE


class Collator:
    """Rows -> {'input_ids' [B, L], 'positions' [N], 'targets' [N]}, int64, and 'tokens', the number that is no padding.

    `positions` index the flattened [B * L] hidden states that predict `targets`: where the next token has a label.
    Padding is on the right, so that a causal model needs no attention mask: no row sees it.
    """

    def __init__(self, pad_id: int):
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
        lengths = np.array([len(ids) for ids, _ in rows])
        valid = np.arange(lengths.max())[None] < lengths[:, None]  # [B, L]
        input_ids = np.full(valid.shape, self.pad_id, dtype=np.int64)
        input_ids[valid] = np.concatenate([ids for ids, _ in rows])
        labels = np.full(valid.shape, IGNORE, dtype=np.int64)
        labels[valid] = np.concatenate([labels for _, labels in rows])
        labels[:, :-1] = labels[:, 1:]
        labels[:, -1] = IGNORE
        positions = np.flatnonzero(labels != IGNORE)
        arrays = {'input_ids': input_ids, 'positions': positions, 'targets': labels.reshape(-1)[positions]}
        return {**{name: torch.from_numpy(array) for name, array in arrays.items()}, 'tokens': int(lengths.sum())}


class LengthSampler(torch.utils.data.Sampler[int]):
    """Row indices such that each batch holds rows of similar length, in an order fixed by (seed, epoch).

    Rows are shuffled, cut into groups of 50 global batches, sorted by length within a group and cut into batches;
    the batches are shuffled in bundles of one a process, so that processes get similar lengths at the same time.
    The first batch of the first epoch holds the longest row: memory that does not suffice shows at once.

    Args:
        lengths: tokens of every row.
        batch_size: rows of a batch of one process.
        epoch: tells the current epoch when an iteration starts.
    """

    def __init__(
        self, lengths: Sequence[int] | np.ndarray, batch_size: int, world_size: int, seed: int, epoch: Callable[[], int]
    ):
        self.lengths = np.asarray(lengths)
        self.bundle = batch_size * world_size
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        generator = np.random.default_rng([self.seed, epoch])
        order = generator.permutation(len(self.lengths))
        group = self.bundle * 50
        bundles: list[np.ndarray] = []
        for start in range(0, len(order), group):
            part = order[start : start + group]
            part = part[np.argsort(-self.lengths[part], kind='stable')]
            bundles += [part[i : i + self.bundle] for i in range(0, len(part), self.bundle)]
        short = [bundles.pop()] if len(bundles[-1]) < self.bundle else []  # only the last may be incomplete
        random.Random(f'{self.seed}-{epoch}').shuffle(bundles)
        if epoch == 0 and bundles:
            longest = max(range(len(bundles)), key=lambda i: self.lengths[bundles[i]].max())
            bundles[0], bundles[longest] = bundles[longest], bundles[0]
        for bundle in [*bundles, *short]:
            yield from bundle.tolist()
