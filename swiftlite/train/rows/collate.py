"""Batches: rows end to end or padded, cut into forward passes, and the positions that carry the loss; row order."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from swiftlite.template import IGNORE


class Collator:
    """Rows -> {'passes': [{'input_ids' [B, L], 'positions' [N], 'targets' [N], ...}, ...], 'tokens': not padding}.

    Rows are sorted by length and cut into passes; how they are cut does not change the gradient of the batch.
    `positions` index the flattened [B * L] hidden states that predict `targets`: where the next token of the same row
    has a label. Both are int64. An item may be a list of rows too: a pack.

    Without padding a pass is its rows end to end, [1, T]. Its 'position_ids' [1, T] begin anew with each row;
    'cu_seqlens' [rows + 1] int32 and 'lengths', a list, say where rows end: see train.attention. With padding, rows
    are padded on the right and need no attention mask: the model is causal, no token of a row sees the padding.

    Args:
        overhead: what a pass costs beyond its tokens, in tokens; more padding than that is worth another pass.
        budget: tokens of a pass at most, padding too (one row may have more), None for no limit.
        padding_free: see above.
    """

    def __init__(
        self, pad_id: int, overhead: float = float('inf'), budget: int | None = None, padding_free: bool = False
    ):
        self.pad_id, self.overhead, self.budget, self.padding_free = pad_id, overhead, budget, padding_free

    def __call__(self, items: Sequence[Any]) -> dict[str, Any]:
        rows = [row for item in items for row in (item if isinstance(item, list) else [item])]
        rows.sort(key=lambda row: -len(row[0]))
        lengths = np.array([len(row[0]) for row in rows])
        make = self._concatenate if self.padding_free else self._pad
        passes = [make(rows[a:b], lengths[a:b]) for a, b in self._cuts(lengths.tolist())]
        return {'passes': passes, 'tokens': int(lengths.sum())}

    def _cuts(self, lengths: list[int]) -> list[tuple[int, int]]:
        """(start, end) of each pass over rows that get shorter."""
        cuts, start, waste, total = [], 0, 0, 0
        for i, length in enumerate(lengths):
            waste += 0 if self.padding_free else lengths[start] - length
            total = total + length if self.padding_free else lengths[start] * (i + 1 - start)
            full = self.budget is not None and total > self.budget
            if i > start and (full or waste > self.overhead):
                cuts.append((start, i))
                start, waste, total = i, 0, length
        return [*cuts, (start, len(lengths))]

    def _concatenate(self, rows: Sequence[Any], lengths: np.ndarray) -> dict[str, Any]:
        input_ids, labels = (np.concatenate([row[part] for row in rows]).astype(np.int64) for part in (0, 1))
        ends = np.concatenate([[0], np.cumsum(lengths)])
        labels[ends[:-1]] = IGNORE  # no row predicts the first token of the next
        positions = np.flatnonzero(labels != IGNORE)
        arrays = {
            'input_ids': input_ids[None],
            'position_ids': (np.arange(ends[-1]) - np.repeat(ends[:-1], lengths))[None],
            'positions': positions - 1,
            'targets': labels[positions],
            'cu_seqlens': ends.astype(np.int32),
        }
        return {**{name: torch.from_numpy(array) for name, array in arrays.items()}, 'lengths': lengths.tolist()}

    def _pad(self, rows: Sequence[Any], lengths: np.ndarray) -> dict[str, torch.Tensor]:
        valid = np.arange(lengths[0])[None] < lengths[:, None]  # [B, L]
        input_ids = np.full(valid.shape, self.pad_id, dtype=np.int64)
        input_ids[valid] = np.concatenate([row[0] for row in rows])
        labels = np.full(valid.shape, IGNORE, dtype=np.int64)
        labels[valid] = np.concatenate([row[1] for row in rows])
        labels[:, :-1] = labels[:, 1:]
        labels[:, -1] = IGNORE
        positions = np.flatnonzero(labels != IGNORE)
        arrays = {'input_ids': input_ids, 'positions': positions, 'targets': labels.reshape(-1)[positions]}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


class BatchSampler(torch.utils.data.Sampler[int]):
    """Row indices in an order fixed by (seed, epoch): shuffled, then sorted by length within each global batch.

    Which rows make up a global batch depends on its size only, not on how devices and accumulation cut it.
    The first batch of the first epoch holds the longest row: memory that does not suffice shows at once.

    Args:
        lengths: tokens of every row.
        global_batch: rows between two changes of the weights.
        together: batches whose rows are drawn together and shared out by length, so that a batch has little padding.
        epoch: tells the current epoch when an iteration starts.
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        global_batch: int,
        seed: int,
        epoch: Callable[[], int],
        together: int = 1,
    ):
        self.lengths = np.asarray(lengths)
        self.global_batch, self.seed, self.epoch, self.together = global_batch, seed, epoch, together

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        epoch = self.epoch()
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.lengths))
        if epoch == 0:
            longest = int(np.argmax(self.lengths[order]))
            order[[0, longest]] = order[[longest, 0]]
        size, many = self.global_batch, self.global_batch * self.together
        for start in range(0, len(order), many):
            drawn = order[start : start + many]
            drawn = drawn[np.argsort(-self.lengths[drawn], kind='stable')]
            batches = [drawn[i : i + size] for i in range(0, len(drawn), size)]
            if self.together > 1:  # the longest row stays in front, a batch that is not full at the end
                first = int(start == 0 and epoch == 0)
                last = len(batches) - int(len(batches[-1]) < size)
                batches[first:last] = [batches[first:last][i] for i in rng.permutation(max(last - first, 0))]
            for batch in batches:
                yield from batch.tolist()
