"""Conversations encoded for training: flat token arrays, and what became of every row."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from swiftlite.data.rows import Drops, Row
from swiftlite.errors import SwiftliteError
from swiftlite.template import IGNORE, Template


@dataclass(frozen=True)
class EncodedRows:
    """Token ids and labels of all rows, end to end; row i is [offsets[i], offsets[i + 1])."""

    input_ids: np.ndarray  # [T] int32
    labels: np.ndarray  # [T] int32, -100 where there is no loss
    offsets: np.ndarray  # [rows + 1] int64

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self.offsets[index], self.offsets[index + 1])
        return self.input_ids[part], self.labels[part]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @classmethod
    def of(cls, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> 'EncodedRows':
        """From (input_ids, labels) of each row."""
        offsets = np.zeros(len(pairs) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids, _ in pairs], out=offsets[1:])
        flat = [
            np.fromiter((token for pair in pairs for token in pair[part]), dtype=np.int32, count=int(offsets[-1]))
            for part in (0, 1)
        ]
        return cls(flat[0], flat[1], offsets)


@dataclass(frozen=True)
class EncodeReport:
    """Counts of one data set; `drops` holds those of reading the files too."""

    kept: int
    truncated: int
    trained_tokens: int
    percentiles: dict[str, int]  # of the kept rows' lengths in tokens
    drops: Drops

    def lines(self, title: str) -> list[str]:
        """The lines printed before training."""
        lines = [f'{title}: {self.kept} rows kept, {self.drops.total} dropped, {self.truncated} truncated']
        lines += [f'  dropped {line}' for line in self.drops.lines()]
        if self.kept:
            shape = ', '.join(f'{name} {value}' for name, value in self.percentiles.items())
            lines.append(f'  tokens a row: {shape}; {self.trained_tokens} tokens carry the loss')
        return lines


def encode_rows(
    rows: Iterable[Row],
    template: Template,
    max_length: int | None,
    truncation_strategy: str,
    drops: Drops,
    progress: Callable[..., None] | None = None,
) -> tuple[EncodedRows, EncodeReport]:
    """Encode every row or count why not.

    Args:
        max_length: longest row in tokens, None for no limit.
        truncation_strategy: 'delete' drops longer rows, 'truncation_left' keeps their last tokens.
        progress: called with completed=rows done now and then.
    """
    pairs: list[tuple[list[int], list[int]]] = []
    truncated = 0
    for done, row in enumerate(rows, 1):
        if progress is not None and done % 500 == 0:
            progress(completed=done)
        try:
            encoded = template.encode_training(row.messages, tools=row.tools)
        except SwiftliteError as error:
            drops.add(str(error), row.where)
            continue
        ids, labels = encoded.input_ids, encoded.labels
        if max_length and len(ids) > max_length:
            if truncation_strategy == 'delete':
                drops.add(f'longer than --max_length {max_length}', row.where)
                continue
            truncated += 1
            ids, labels = ids[-max_length:], labels[-max_length:]
        if all(label == IGNORE for label in labels[1:]):
            drops.add('no token to learn from', row.where)
            continue
        pairs.append((ids, labels))
    data = EncodedRows.of(pairs)
    trained = int((data.labels != IGNORE).sum())
    return data, EncodeReport(len(data), truncated, trained, _percentiles(data.lengths), drops)


def _percentiles(lengths: np.ndarray) -> dict[str, int]:
    if not len(lengths):
        return {}
    points = {'min': 0, 'p50': 50, 'p90': 90, 'p99': 99, 'max': 100}
    return {name: int(np.percentile(lengths, point, method='nearest')) for name, point in points.items()}
