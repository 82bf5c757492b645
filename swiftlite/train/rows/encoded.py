"""Encoded rows end to end in flat arrays, in memory or mapped from files that processes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ARRAYS = ('input_ids', 'labels', 'starts', 'lengths')


@dataclass(frozen=True)
class EncodedRows:
    """Token ids and labels of all rows; row i is [starts[i], starts[i] + lengths[i]) of them.

    Rows may share their tokens: `take` copies none.
    """

    input_ids: np.ndarray  # [T] int32
    labels: np.ndarray  # [T] int32, -100 where there is no loss
    starts: np.ndarray  # [rows] int64
    lengths: np.ndarray  # [rows] int64

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        start = self.starts[index]
        part = slice(start, start + self.lengths[index])
        return self.input_ids[part], self.labels[part]

    def take(self, rows: np.ndarray) -> 'EncodedRows':
        """These rows, in this order; a row may come several times."""
        return EncodedRows(self.input_ids, self.labels, self.starts[rows], self.lengths[rows])

    @classmethod
    def of(cls, pairs: Sequence[tuple[Sequence[int] | np.ndarray, Sequence[int] | np.ndarray]]) -> 'EncodedRows':
        """From (input_ids, labels) of each row."""
        lengths = np.array([len(ids) for ids, _ in pairs], dtype=np.int64)
        ids, labels = (np.empty(lengths.sum(), dtype=np.int32) for _ in range(2))
        starts = np.cumsum(lengths) - lengths
        for start, length, (row, wanted) in zip(starts.tolist(), lengths.tolist(), pairs, strict=True):
            ids[start : start + length], labels[start : start + length] = row, wanted
        return cls(ids, labels, starts, lengths)

    @classmethod
    def join(cls, parts: Sequence['EncodedRows']) -> 'EncodedRows':
        """The rows of all parts in their order."""
        if not parts:
            return cls.of([])
        before = np.cumsum([0, *(len(part.input_ids) for part in parts)])
        starts = np.concatenate([part.starts + shift for part, shift in zip(parts, before[:-1], strict=True)])
        ids, labels, lengths = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ('input_ids', 'labels', 'lengths')
        )
        return cls(ids, labels, starts, lengths)

    def save(self, folder: Path) -> None:
        """Write the arrays as .npy files into a folder, which is made."""
        folder.mkdir()
        for name in ARRAYS:
            np.save(folder / f'{name}.npy', getattr(self, name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> 'EncodedRows':
        """Map what `save` wrote: nothing is read before it is used, and processes share what is."""
        return cls(*(np.load(folder / f'{name}.npy', mmap_mode='r', allow_pickle=False) for name in ARRAYS))
