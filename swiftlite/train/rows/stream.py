"""Training on data that is never all in memory: rows encoded while they are read, batches ahead of the steps."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Full, Queue
from typing import Any

import numpy as np

from swiftlite.args.sft import SftArgs
from swiftlite.data.files import Drops
from swiftlite.data.stream import RowStream
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.template import IGNORE, Template
from swiftlite.train.rows.encode import EMPTY, NO_TARGET, cut, encode_options, encode_row, has_empty_answer
from swiftlite.train.rows.encoded import EncodedRows
from swiftlite.train.rows.packing import best_fit_decreasing
from swiftlite.train.scale.ranks import world_size
from swiftlite.train.settings import PASS_TOKENS

AHEAD = 8  # batches that wait for the training
WINDOW = 64  # packs that rows are read ahead for; at most one of them is not full
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Place:
    """How far a process has read: records of its share in pass `number`, pieces of the next, rows it made of all.

    With packs, that is where a window begins, of which so many `packs` with so many rows (`packed`) were taken.
    """

    number: int = 0
    records: int = 0
    pieces: int = 0
    kept: int = 0
    world: int = 1
    packs: int = 0
    packed: int = 0


def row_stream(args: SftArgs) -> RowStream:
    return RowStream(args, args.interleave_prob, args.stopping_strategy, args.shuffle_buffer_size, args.strict)


class EncodedStream:
    """(input_ids, labels) of the rows of --dataset that are process `rank`'s of `world`, without end; or packs of them.

    Which rows come when is fixed by --dataset_seed and the number of processes. `taken` is the place behind the rows
    that were trained on.
    """

    def __init__(self, args: SftArgs, template: Template, rank: int = 0):
        self.rows, self.template, self.options = row_stream(args), template, encode_options(args)
        self.rank, self.noted = rank, Drops()
        self.capacity, self.seed = args.packing_length if args.packing else None, args.dataset_seed
        self.taken = Place(world=world_size())

    def __iter__(self) -> Iterator[tuple[Pair | list[Pair], Place]]:
        """Pairs, or packs, with the place behind each. Raises SwiftliteError where a whole pass gives none."""
        return self.pairs(self.taken) if self.capacity is None else self.packs(self.taken, self.capacity)

    def packs(self, place: Place, capacity: int) -> Iterator[tuple[list[Pair], Place]]:
        """Lists of pairs of at most `capacity` tokens together, made of a window of rows that are read ahead.

        A window ends with its pass, so that no row comes twice before all have come.
        """
        done, place = place.packs, replace(place, packs=0, packed=0)
        rows = self.pairs(place)
        pair, behind = next(rows)
        while True:
            window: list[Pair] = []
            end, tokens = behind, 0
            while behind.number == end.number and tokens < WINDOW * capacity:
                window.append(pair)
                end, tokens = behind, tokens + len(pair[0])
                pair, behind = next(rows)
            rng = np.random.default_rng([self.seed, end.number, end.records])
            lengths = np.array([len(ids) for ids, _ in window])
            members, offsets = best_fit_decreasing(lengths, capacity, rng)
            packed = 0
            for count, index in enumerate(rng.permutation(len(offsets) - 1).tolist(), 1):
                pack = [window[i] for i in members[offsets[index] : offsets[index + 1]]]
                packed += len(pack)
                if count > done:
                    yield pack, end if packed == len(window) else replace(place, packs=count, packed=packed)
            same = behind.number == end.number
            place, done = end if same else Place(behind.number, kept=end.kept, world=end.world), 0

    def pairs(self, place: Place) -> Iterator[tuple[Pair, Place]]:
        """What comes behind a place."""
        while True:
            whole, before = place == Place(place.number, kept=place.kept, world=place.world), place.kept
            for index, raw in enumerate(self.rows.raw(place.number)):
                if index % place.world != self.rank or index // place.world < place.records:
                    continue
                pairs = self._encoded(raw, place.number)
                for pair in pairs[place.pieces :]:
                    place = replace(place, pieces=place.pieces + 1, kept=place.kept + 1)
                    if place.pieces == len(pairs):
                        place = replace(place, records=place.records + 1, pieces=0)
                    yield pair, place
                if not pairs:
                    place = replace(place, records=place.records + 1)
            if whole and place.kept == before:
                why = '; '.join(self.rows.drops.lines()) or 'the data is empty'
                raise SwiftliteError(f'no rows are left to train on: {why}')
            place = Place(place.number + 1, kept=place.kept, world=place.world)

    def _encoded(self, raw: Any, number: int) -> list[Pair]:
        row, drops = self.rows.row(raw, number), self.rows.drops
        if row is None:
            return []
        try:
            ids, labels = encode_row(row, self.template, self.options)
        except SwiftliteError as error:
            if number == 0:
                drops.add(str(error), row.where)
            return []
        pieces = cut(ids, labels, self.options, text=row.messages[0]['role'] == 'text')
        learnt = [pair for pair in pieces if (pair[1][1:] != IGNORE).any()]
        if not pieces and number == 0:
            drops.skip(f'longer than --max_length {self.options.max_length}', row.where)
        elif not learnt and number == 0:
            drops.add(NO_TARGET, row.where)
        elif number == 0 and has_empty_answer(row, self.options):
            self.noted.skip(EMPTY, row.where)
        return learnt

    def largest(self, count: int) -> EncodedRows:
        """Rows as long as they may be and learned as a whole, for what they take in memory."""
        row = np.zeros(self.capacity or self.options.max_length or PASS_TOKENS, dtype=np.int32)
        return EncodedRows.of([(row, row)] * count)

    def lines(self) -> list[str]:
        """What became of the rows so far, as it is printed at the end."""
        world = self.taken.world
        share = f' by one of {world} processes' if world > 1 else ''
        kept = self.taken.kept + self.taken.packed
        lines = [f'training data: {kept} rows taken from the stream{share}, in pass {self.taken.number + 1}']
        lines += [f'  dropped {line}' for line in self.rows.drops.lines()]
        return lines + [f'  kept {line}' for line in self.noted.lines()]

    def save(self, folder: str | Path) -> None:
        """Write where this process is beside a checkpoint."""
        self._file(folder).write_text(json.dumps(asdict(self.taken)) + '\n', encoding='utf-8')

    def restore(self, folder: str | Path) -> None:
        """Go on where `save` was called. UsageError for one of another number of processes, or of no stream."""
        file = self._file(folder)
        if not file.is_file():
            raise UsageError(f"--resume_from_checkpoint '{folder}' has no {file.name}: it was read from no stream")
        place = Place(**json.loads(file.read_text(encoding='utf-8')))
        if place.world != self.taken.world:
            raise UsageError(
                f"--resume_from_checkpoint '{folder}' read its stream with {place.world} processes: "
                f'go on with as many, not {self.taken.world}'
            )
        self.taken = place

    def _file(self, folder: str | Path) -> Path:
        return Path(folder) / f'stream-{self.rank}.json'


class StreamLoader:
    """Batches of a stream, put together by a thread that keeps a few ahead; `stream.taken` says which were taken."""

    def __init__(self, stream: EncodedStream, batch_size: int, collate: Callable[[list[Pair]], Any]):
        self.stream, self.batch_size, self.collate = stream, batch_size, collate

    def __iter__(self) -> Iterator[Any]:
        ready: Queue[Any] = Queue(AHEAD)
        stop = threading.Event()
        thread = threading.Thread(target=self._fill, args=(ready, stop), daemon=True)
        thread.start()
        try:
            while True:
                made = ready.get()
                if isinstance(made, BaseException):
                    raise made
                batch, self.stream.taken = made
                yield batch
        finally:
            stop.set()
            thread.join()

    def _fill(self, ready: Queue, stop: threading.Event) -> None:
        try:
            rows = iter(self.stream)
            while not stop.is_set():
                pairs, places = zip(*(next(rows) for _ in range(self.batch_size)), strict=True)
                _put(ready, (self.collate(list(pairs)), places[-1]), stop)
        except BaseException as error:
            _put(ready, error, stop)


def _put(ready: Queue, made: Any, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            return ready.put(made, timeout=0.1)
        except Full:
            continue
