"""Conversations encoded for training, and what became of every row."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from swiftlite.args.sft import SftArgs
from swiftlite.data.rows import Drops, Row
from swiftlite.errors import SwiftliteError
from swiftlite.template import IGNORE, Template
from swiftlite.train.rows.encoded import EncodedRows
from swiftlite.train.rows.forked import forked

NO_TARGET = 'no token to learn from'
EMPTY = 'an empty answer: its end alone is learnt'
MANY_DROPPED = 0.1  # share of the rows above which a warning is printed


@dataclass(frozen=True)
class EncodeOptions:
    """How rows become tokens.

    Rows that are longer than `max_length` tokens: 'delete' drops them, 'left' cuts off their start, 'right' their end,
    'split' makes several rows of a text and drops conversations. `loss_scale`: as Template.encode_training takes it.
    """

    max_length: int | None = None
    truncation_strategy: str = 'delete'
    loss_scale: str = 'default'


@dataclass(frozen=True)
class EncodeReport:
    """Counts of one data set; `drops` holds those of reading the files too."""

    kept: int
    truncated: int
    trained_tokens: int  # nothing predicts the first of a row
    percentiles: dict[str, int]  # of the kept rows' lengths in tokens
    longest: int  # tokens of the longest row before anything was dropped or cut
    drops: Drops
    noted: Drops = field(default_factory=Drops)  # rows that are kept and yet may not be meant

    def lines(self, title: str) -> list[str]:
        """The lines printed before training."""
        dropped = self.drops.total
        lines = [f'{title}: {self.kept} rows kept, {dropped} dropped, {self.truncated} truncated']
        lines += [f'  dropped {line}' for line in self.drops.lines()]
        lines += [f'  kept {line}' for line in self.noted.lines()]
        if dropped > MANY_DROPPED * (self.kept + dropped):
            lines.append(f'  warning: {dropped / (self.kept + dropped):.0%} of the rows were dropped')
        if self.kept:
            shape = ', '.join(f'{name} {value}' for name, value in self.percentiles.items())
            over = f' ({self.longest} before truncation)' if self.longest > self.percentiles['max'] else ''
            lines.append(f'  tokens a row: {shape}{over}; {self.trained_tokens} tokens carry the loss')
        return lines

    def record(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> 'EncodeReport':
        """What `record` gave. TypeError, KeyError or ValueError for what it did not."""
        counts = {
            part: Drops({name: (int(count), str(first)) for name, (count, first) in record[part]['reasons'].items()})
            for part in ('drops', 'noted')
        }
        return cls(**{**record, **counts})


def encode_rows(
    rows: Sequence[Row],
    template: Template,
    options: EncodeOptions,
    drops: Drops,
    progress: Callable[[int], None] | None = None,
    workers: int = 1,
) -> tuple[EncodedRows, np.ndarray, EncodeReport]:
    """(encoded rows in their order, which of `rows` each one is, what became of all); `drops` counts why not.

    Args:
        progress: called with numbers of rows that are done.
        workers: processes that share the rows.

    Raises:
        SwiftliteError: a row cannot be used, and `drops` is strict.
    """
    size = -(-len(rows) // max(workers, 1)) or 1
    starts = range(0, len(rows), size)
    jobs = [partial(_encode, rows[start : start + size], template, options) for start in starts]
    parts = forked(jobs, progress or _ignore) if len(jobs) > 1 else [job(progress or _ignore) for job in jobs]
    noted = Drops()
    for part in parts:
        if drops.strict and part.bad is not None:
            drops.add(*part.bad)
        drops.merge(part.drops)
        noted.merge(part.noted)
    data = EncodedRows.join([part.data for part in parts])
    places = [part.places + start for part, start in zip(parts, starts, strict=True)]
    report = EncodeReport(
        kept=len(data),
        truncated=sum(part.truncated for part in parts),
        trained_tokens=int((data.labels != IGNORE).sum() - (data.labels[data.starts] != IGNORE).sum()),
        percentiles=_percentiles(data.lengths),
        longest=max((part.longest for part in parts), default=0),
        drops=drops,
        noted=noted,
    )
    return data, np.concatenate([np.empty(0, dtype=np.int64), *places]), report


@dataclass(frozen=True)
class _Part:
    data: EncodedRows
    places: np.ndarray  # [rows] which of the rows given
    truncated: int
    longest: int
    drops: Drops
    noted: Drops
    bad: tuple[str, str] | None  # reason and place of the first row that cannot be used


def _encode(rows: Sequence[Row], template: Template, options: EncodeOptions, progress: Callable[[int], None]) -> _Part:
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    places: list[int] = []
    bad: tuple[str, str] | None = None
    truncated, longest, drops, noted = 0, 0, Drops(), Drops()
    for done, row in enumerate(rows, 1):
        if done % 200 == 0 or done == len(rows):
            progress(done % 200 or 200)
        try:
            ids, labels = encode_row(row, template, options)
        except SwiftliteError as error:
            drops.add(str(error), row.where)
            bad = bad or (str(error), row.where)
            continue
        longest = max(longest, len(ids))
        pieces = cut(ids, labels, options, text=row.messages[0]['role'] == 'text')
        if not pieces:
            drops.skip(f'longer than --max_length {options.max_length}', row.where)
            continue
        learnt = [(part, wanted) for part, wanted in pieces if (wanted[1:] != IGNORE).any()]
        if not learnt:
            within = '' if len(pieces[0][0]) == len(ids) else f' within --max_length {options.max_length}'
            drops.add(NO_TARGET + within, row.where)
            bad = bad or (NO_TARGET + within, row.where)
            continue
        if has_empty_answer(row, options):
            noted.skip(EMPTY, row.where)
        truncated += len(learnt[0][0]) < len(ids)
        pairs += learnt
        places += [done - 1] * len(learnt)
    return _Part(EncodedRows.of(pairs), np.array(places, dtype=np.int64), truncated, longest, drops, noted, bad)


def encode_options(args: SftArgs) -> EncodeOptions:
    return EncodeOptions(args.max_length, args.truncation_strategy, args.loss_scale)


def encode_row(row: Row, template: Template, options: EncodeOptions) -> tuple[np.ndarray, np.ndarray]:
    """(input_ids, labels) of a whole row, int32. SwiftliteError where the template cannot write it."""
    encoded = template.encode_training(row.messages, tools=row.tools, loss_scale=options.loss_scale)
    return np.array(encoded.input_ids, dtype=np.int32), np.array(encoded.labels, dtype=np.int32)


def has_empty_answer(row: Row, options: EncodeOptions) -> bool:
    """Whether an answer that is learnt says nothing, calls nothing and thinks nothing."""
    asked = [index for index, message in enumerate(row.messages) if message['role'] == 'user']
    first = asked[-1] if asked and options.loss_scale.startswith('last_round') else 0
    return any(
        message['role'] == 'assistant'
        and message.get('loss') is not False
        and not message.get('tool_calls')
        and not message.get('reasoning_content')
        and isinstance(message['content'], str)
        and not message['content'].strip()
        for message in row.messages[first:]
    )


def cut(
    ids: np.ndarray, labels: np.ndarray, options: EncodeOptions, text: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What is left of a row within its limit: nothing, the row, a part of it, or the pieces of a `text`."""
    limit = options.max_length
    if not limit or len(ids) <= limit:
        return [(ids, labels)]
    match options.truncation_strategy:
        case 'left':
            return [(ids[-limit:], labels[-limit:])]
        case 'right':
            return [(ids[:limit], labels[:limit])]
        case 'split' if text:
            return [(ids[i : i + limit], labels[i : i + limit]) for i in range(0, len(ids), limit)]
    return []


def _ignore(done: int) -> None:
    """Progress that nobody watches."""


def _percentiles(lengths: np.ndarray) -> dict[str, int]:
    if not len(lengths):
        return {}
    points = {'min': 0, 'p50': 50, 'p90': 90, 'p99': 99, 'max': 100}
    return {name: int(np.percentile(lengths, point, method='nearest')) for name, point in points.items()}
