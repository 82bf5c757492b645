"""The data of a run: read, encoded, kept for the next run, repeated and mixed, with a report of every row."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import swiftlite
from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint.native import cache_folder
from swiftlite.data.mix import FIRST, interleaved, repeats
from swiftlite.data.rows import Drops, Row
from swiftlite.data.sources import parse
from swiftlite.data.split import read_split
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.template import Template
from swiftlite.train.rows.cache import EncodedData, cached, content_key, file_digest, prune
from swiftlite.train.rows.encode import EncodeOptions, EncodeReport, encode_options, encode_rows
from swiftlite.train.rows.encoded import EncodedRows
from swiftlite.train.rows.forked import usable_workers
from swiftlite.train.rows.packing import Rows, pack, pack_rows
from swiftlite.train.rows.stream import WINDOW, EncodedStream
from swiftlite.train.scale.ranks import rank, say
from swiftlite.train.watching.callbacks import progress_bar

MANY = 10_000  # rows from which encoding shows a bar and takes several processes
TRAINING, HELD_OUT = 'training data', 'held-out data'
# files of a checkpoint that decide on token ids, and code that decides on them
TOKENIZER = (
    'tokenizer*',
    'vocab*',
    'merges.txt',
    'special_tokens_map.json',
    'added_tokens.json',
    '*.model',
    '*.tiktoken',
    'config.json',  # names the class that reads them
)
CODE = (
    *('data', 'template', 'registry/templates.py', 'checkpoint/tokenizer.py'),
    *('train/rows/encode.py', 'train/rows/encoded.py', 'train/rows/data.py', 'train/rows/cache.py'),
)


def run_data(args: SftArgs, template: Template, base: str) -> tuple[Rows | EncodedStream, Rows | None]:
    """What a run trains on, in packs or as a stream where that is asked for, and its held-out rows."""
    if args.streaming:
        return _streamed(args, template, base)
    training, held_out = training_data(args, template, base)
    return pack(args, training, held_out) if args.packing else (training, held_out)


def training_data(args: SftArgs, template: Template, base: str) -> tuple[EncodedRows, EncodedRows | None]:
    """(rows of a pass over the training data, held-out rows), after printing what became of all of them.

    Nothing here talks to other processes: one of a computer encodes, the others wait for its files.

    Raises:
        UsageError, SwiftliteError: data that is not there or cannot be read, or of which nothing is left.
    """
    data = _prepared(args, template, base)
    training = one_pass(data, args)
    if not len(training):
        why = '; '.join(data.reports[TRAINING].drops.lines()) or 'the data is empty'
        raise SwiftliteError(f'no rows are left to train on: {why}')
    if len(training) != len(data.training):
        say(f'  {len(training)} rows a pass, after repeating and mixing')
    return training, data.held_out if len(data.held_out) else None


def extent(data: Rows | EncodedStream, args: SftArgs) -> tuple[int, int]:
    """(rows, tokens of the longest), as far as they are known: of a stream, (0, the most there may be)."""
    if isinstance(data, EncodedStream):
        return 0, data.capacity or args.max_length or 0
    return len(data), int(data.lengths.max())


def beyond(data: Rows | EncodedStream, args: SftArgs, limit: int | None) -> str | None:
    """What is said of rows that are longer than the `limit` positions of the model, or in a stream may be."""
    if limit is None:
        return None
    within = f'--max_length {limit} keeps what is said within them'
    if isinstance(data, EncodedStream):
        if args.max_length is not None and args.max_length <= limit:
            return None
        given = 'without --max_length' if args.max_length is None else f'--max_length {args.max_length}'
        return f'note: {given} rows may be longer than the {limit} positions of the model; {within}'
    lengths = getattr(data, 'rows', data).lengths
    if not (over := int((lengths > limit).sum())):
        return None
    return (
        f'warning: {over} rows are longer than the {limit} positions of the model, up to {lengths.max()} tokens: it '
        f'never saw so many, and is not served with more; {within}'
    )


def _streamed(args: SftArgs, template: Template, base: str) -> tuple[EncodedStream, Rows | None]:
    """Raises SwiftliteError where the stream has no row to train on."""
    probe = EncodedStream(args, template, rank())
    next(probe.pairs(probe.taken))
    stream = EncodedStream(args, template, rank())
    if stream.capacity is not None:
        say(
            f'packs of {stream.capacity:,} tokens are made of the rows that are read ahead, enough for {WINDOW} of them'
        )
    say(f'training data: read while training, each row drawn from {args.shuffle_buffer_size} that are read ahead')
    if not args.val_dataset:
        say('note: nothing is held out of a stream; --val_dataset names rows to measure on')
        return stream, None
    held_out = _prepared(args, template, base).held_out
    if not len(held_out):
        return stream, None
    return stream, pack_rows(args, held_out, 'held-out data') if args.packing else held_out


def _prepared(args: SftArgs, template: Template, base: str) -> EncodedData:
    """What is read before training, from the cache or made anew; printed."""
    options = encode_options(args)
    make = partial(_encoded, args, template, options)
    folder = encoded_folder(args, template, options, base)
    there = False
    if folder is None:
        data = make()
    else:
        try:
            data, there = cached(folder, make)
            if not there and args.data_cache_limit:
                for old in prune(folder.parent, int(args.data_cache_limit * 2**30)):
                    say(f'  removed, to keep within --data_cache_limit {args.data_cache_limit:g}: {old}')
        except OSError as error:
            say(f'note: the encoded data is not kept: {folder.parent} cannot be written ({error.strerror})')
            data = make()
    for title, report in data.reports.items():
        for line in report.lines(title):
            say(line)
    if there:
        say(f'  encoded by an earlier run: {folder}')
    return data


def one_pass(data: EncodedData, args: SftArgs) -> EncodedRows:
    """The rows of all parts, each as often as it is wanted, or a mix of them. UsageError for a mix with nothing."""
    wanted, start = [], 0
    for rows, count in data.parts:
        order = np.array(repeats(rows, count, args.dataset_seed), dtype=np.int64) + start
        first = np.searchsorted(data.places, order, side='left')
        number = np.searchsorted(data.places, order, side='right') - first  # 0: dropped; above 1: split
        steps = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        wanted.append(np.repeat(first, number) + steps)
        start += rows
    if args.interleave_prob is None:
        return data.training.take(np.concatenate([*wanted, np.empty(0, dtype=np.int64)]))
    for spec, chosen in zip(args.dataset, wanted, strict=True):
        if not len(chosen):
            raise UsageError(f"--interleave_prob: nothing is left of '{spec}' to draw from")
    sizes = [len(chosen) for chosen in wanted]
    mix = interleaved(sizes, args.interleave_prob, args.stopping_strategy or FIRST, args.dataset_seed)
    return data.training.take(np.array([wanted[part][row] for part, row in mix], dtype=np.int64))


def encoded_folder(args: SftArgs, template: Template, options: EncodeOptions, base: str) -> Path | None:
    """Where the encoded data is kept, named by everything it depends on; None for nowhere."""
    if args.data_cache is not None and args.data_cache.lower() == 'none':
        return None
    place = Path(args.data_cache).expanduser() if args.data_cache else cache_folder() / 'encoded'
    key = content_key(
        [] if args.streaming else [_source(spec) for spec in args.dataset],
        [_source(spec) for spec in args.val_dataset],
        [args.dataset_test_ratio, args.dataset_seed, args.model_name, args.model_author, args.strict],
        [options.max_length, options.truncation_strategy, options.loss_scale],
        args.new_special_tokens,
        template.identity,
        [(path.name, file_digest(path)) for path in _tokenizer_files(Path(base))],
        _code(),
    )
    return place / key


def _source(spec: str) -> list[Any]:
    source = parse(spec)
    files = [(str(path), file_digest(path)) for path in source.files()]
    return [spec, repr(source.info), files]


def _tokenizer_files(base: Path) -> list[Path]:
    return sorted({path for pattern in TOKENIZER for path in base.glob(pattern) if path.is_file()})


def _code() -> str:
    """A digest of the code that makes tokens of rows: another version makes its own."""
    import tokenizers
    import transformers

    root = Path(swiftlite.__file__).parent
    files = [path for name in CODE for path in ([root / name] if name.endswith('.py') else (root / name).glob('*.py'))]
    digest = hashlib.blake2b(f'{transformers.__version__} {tokenizers.__version__}'.encode(), digest_size=16)
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _encoded(args: SftArgs, template: Template, options: EncodeOptions) -> EncodedData:
    split = read_split(args, training=not args.streaming, strict=args.strict)
    rows = [row for part in split.parts for row in part.rows]
    training, places, report = _encode(TRAINING, rows, template, options, split.drops)
    held, _, held_report = _encode(HELD_OUT, split.held_out, template, options, split.held_out_drops)
    reports = {} if args.streaming else {TRAINING: report}
    if split.held_out or args.val_dataset:
        reports[HELD_OUT] = held_report
    return EncodedData(training, places, [(len(part.rows), part.count) for part in split.parts], held, reports)


def _encode(
    title: str, rows: list[Row], template: Template, options: EncodeOptions, drops: Drops
) -> tuple[EncodedRows, np.ndarray, EncodeReport]:
    """Encode; a bar shows where it takes long."""
    if len(rows) <= MANY:
        return encode_rows(rows, template, options, drops)
    with progress_bar() as bar:
        tick = partial(bar.advance, bar.add_task(f'encoding {title}', total=len(rows)))
        return encode_rows(rows, template, options, drops, tick, usable_workers(16))
