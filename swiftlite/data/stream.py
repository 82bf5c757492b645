"""Rows read from their files piece by piece, again and again, without ever being all in memory."""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from swiftlite.args.groups import DataArgs
from swiftlite.data.columns import RowError, to_conversation
from swiftlite.data.files import Drops, records
from swiftlite.data.mix import FIRST, Draws
from swiftlite.data.rows import Row, load_rows, names
from swiftlite.data.sources import Source, parse
from swiftlite.registry.datasets import DatasetInfo

T = TypeVar('T')
Raw = Row | tuple[str, Any, DatasetInfo]  # a row, or where a record is, what it holds and how to read it


class RowStream:
    """The rows of --dataset, pass after pass, each in an order of its own that --dataset_seed fixes.

    Values of --dataset follow each other, or are mixed by `weights` (see `mixed`); then each row is drawn from the next
    `buffer` that were read. Rows that cannot be used are counted in `drops`, once.
    """

    def __init__(
        self, args: DataArgs, weights: Sequence[float] | None, strategy: str | None, buffer: int, strict: bool = False
    ):
        self.seed, self.weights, self.strategy, self.buffer = args.dataset_seed, weights, strategy or FIRST, buffer
        self.drops = Drops(strict=strict)
        self._who = names(args.model_name, args.model_author)
        self._sources = [(spec, parse(spec)) for spec in args.dataset]
        self._files = {spec: source.files() for spec, source in self._sources}

    def raw(self, number: int) -> Iterator[Raw]:
        """The records of pass `number`, in its order, not yet read as rows."""
        drops = self.drops if number == 0 else Drops()
        readers = [self._reader(spec, source, drops) for spec, source in self._sources]
        merged: Iterator[Raw]
        if self.weights is None:
            merged = (item for read in readers for item in read())
        else:
            merged = mixed(readers, Draws(self.weights, self.seed + number), self.strategy)
        return shuffled(merged, self.buffer, random.Random(f'{self.seed} {number}'))

    def row(self, raw: Raw, number: int) -> Row | None:
        """What a record says; None, and counted in the first pass, where it cannot be read."""
        if isinstance(raw, Row):
            return raw
        where, record, info = raw
        try:
            return Row(*to_conversation(record, info=info), where=where)
        except RowError as error:
            if number == 0:
                self.drops.add(str(error), where)
            return None

    def _reader(self, spec: str, source: Source, drops: Drops) -> Callable[[], Iterator[Raw]]:
        if source.info.needs_names:
            rows = load_rows([spec], self._who, self.seed, drops)
            return lambda: iter(rows)
        files = self._files[spec]
        return lambda: ((*record, source.info) for file in files for record in records(file, drops))


def mixed(readers: list[Callable[[], Iterator[T]]], draws: Iterator[int], strategy: str) -> Iterator[T]:
    """Items of the readers in the order drawn; `strategy` as of `interleaved`. A reader is opened anew at its end."""
    open_ones = [reader() for reader in readers]
    done = [False] * len(readers)
    for index in draws:
        item = next(open_ones[index], None)
        if item is None:
            done[index] = True
            if strategy == FIRST or all(done):
                return
            open_ones[index] = readers[index]()
            item = next(open_ones[index], None)
            if item is None:
                return  # nothing is in it at all
        yield item


def shuffled(items: Iterator[T], size: int, rng: random.Random) -> Iterator[T]:
    """All items, each drawn at random from `size` that were read ahead."""
    waiting: list[T] = []
    for item in items:
        if len(waiting) < size:
            waiting.append(item)
            continue
        place = rng.randrange(size)
        waiting[place], item = item, waiting[place]
        yield item
    rng.shuffle(waiting)
    yield from waiting
