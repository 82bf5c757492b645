"""Conversations encoded for training: flat token arrays, and what became of every row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from swiftlite.data.rows import Drops, Row
from swiftlite.errors import SwiftliteError
from swiftlite.template import IGNORE, Template
from swiftlite.train.forked import forked


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

    @classmethod
    def join(cls, parts: Sequence['EncodedRows']) -> 'EncodedRows':
        """The rows of all parts in their order."""
        if not parts:
            return cls.of([])
        lengths = np.concatenate([part.lengths for part in parts])
        flat = [np.concatenate(arrays) for arrays in zip(*((p.input_ids, p.labels) for p in parts), strict=True)]
        return cls(flat[0], flat[1], np.concatenate([[0], np.cumsum(lengths)]))


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


@dataclass(frozen=True)
class Limits:
    """How long a row may be: 'delete' drops longer ones, 'truncation_left' keeps their last tokens."""

    max_length: int | None = None  # tokens, None for no limit
    truncation_strategy: str = 'delete'


def encode_rows(
    rows: Sequence[Row],
    template: Template,
    limits: Limits,
    drops: Drops,
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
) -> tuple[EncodedRows, EncodeReport]:
    """Encode every row, in their order, or count in `drops` why not.

    Args:
        progress: called with numbers of rows that are done.
        workers: processes that share the rows.
    """
    size = -(-len(rows) // max(workers, 1)) or 1
    slices = [rows[start : start + size] for start in range(0, len(rows), size)]
    jobs = [partial(_encode, part, template, limits) for part in slices]
    parts = forked(jobs, progress or _ignore) if len(jobs) > 1 else [job(progress or _ignore) for job in jobs]
    for part in parts:
        drops.merge(part.drops)
    data = EncodedRows.join([part.data for part in parts])
    trained = int((data.labels != IGNORE).sum())
    return data, EncodeReport(len(data), sum(p.truncated for p in parts), trained, _percentiles(data.lengths), drops)


@dataclass(frozen=True)
class _Part:
    data: EncodedRows
    truncated: int
    drops: Drops


def _encode(rows: Sequence[Row], template: Template, limits: Limits, progress: Callable[[int], None]) -> _Part:
    pairs: list[tuple[list[int], list[int]]] = []
    truncated, drops, longest = 0, Drops(), limits.max_length
    for done, row in enumerate(rows, 1):
        if done % 200 == 0 or done == len(rows):
            progress(done % 200 or 200)
        try:
            encoded = template.encode_training(row.messages, tools=row.tools)
        except SwiftliteError as error:
            drops.add(str(error), row.where)
            continue
        ids, labels = encoded.input_ids, encoded.labels
        if longest and len(ids) > longest:
            if limits.truncation_strategy == 'delete':
                drops.add(f'longer than --max_length {longest}', row.where)
                continue
            truncated += 1
            ids, labels = ids[-longest:], labels[-longest:]
        if all(label == IGNORE for label in labels[1:]):
            drops.add('no token to learn from', row.where)
            continue
        pairs.append((ids, labels))
    return _Part(EncodedRows.of(pairs), truncated, drops)


def _ignore(done: int) -> None:
    """Progress that nobody watches."""


def _percentiles(lengths: np.ndarray) -> dict[str, int]:
    if not len(lengths):
        return {}
    points = {'min': 0, 'p50': 50, 'p90': 90, 'p99': 99, 'max': 100}
    return {name: int(np.percentile(lengths, point, method='nearest')) for name, point in points.items()}
