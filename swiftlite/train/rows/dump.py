"""``--dump_prompt``: rows as the model will see them, token by token, with what is learned of them."""

import os
import sys
from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Any

import numpy as np

from swiftlite.args.sft import SftArgs
from swiftlite.data.rows import Drops, Row
from swiftlite.data.split import read_split
from swiftlite.errors import SwiftliteError
from swiftlite.template import IGNORE, Template
from swiftlite.train.rows.encode import NO_TARGET, cut, encode_options, encode_row
from swiftlite.train.rows.stream import row_stream
from swiftlite.train.scale.ranks import say

LEARNED, CONTEXT, PLAIN = '\x1b[1;32m', '\x1b[2m', '\x1b[0m'


def dump_prompt(args: SftArgs, template: Template, tokenizer: Any) -> int:
    """Print the first --dump_prompt rows that would be trained on; returns how many there were.

    What is learned is green, or in [brackets] where the output is no terminal or NO_COLOR is set. Raises
    SwiftliteError where no row is left.
    """
    coloured = sys.stdout.isatty() and not os.environ.get('NO_COLOR')
    options, shown = encode_options(args), 0
    rows, drops = _rows(args)
    for row in rows:
        if shown == args.dump_prompt:
            break
        try:
            whole, labels = encode_row(row, template, options)
        except SwiftliteError as error:
            drops.add(str(error), row.where)
            continue
        pieces = cut(whole, labels, options, text=row.messages[0]['role'] == 'text')
        if not pieces:
            drops.skip(f'longer than --max_length {options.max_length}', row.where)
        elif not (learnt := [pair for pair in pieces if (pair[1][1:] != IGNORE).any()]):
            drops.add(NO_TARGET, row.where)
        else:
            ids, wanted = learnt[0]
            shown += 1
            learned = wanted != IGNORE
            learned[:1] = False  # nothing predicts the first token
            of = '' if len(ids) == len(whole) else f' of {len(whole)}'
            say(f'{row.where}: template {template.name}, {len(ids)}{of} tokens, {learned.sum()} of them learned')
            say(text_of(ids, learned, tokenizer, coloured))
            say(f'ids: {numbers(ids, learned, coloured)}\n')
    for line in drops.lines():
        say(f'dropped {line}')
    if not shown:
        raise SwiftliteError(f'no rows are left to show: {"all were dropped" if drops.total else "the data is empty"}')
    say(f'{shown} rows shown, nothing trained')
    return shown


def _rows(args: SftArgs) -> tuple[Iterator[Row], Drops]:
    if args.streaming:
        stream = row_stream(args)
        return (row for raw in stream.raw(0) if (row := stream.row(raw, 0)) is not None), stream.drops
    split = read_split(args, strict=args.strict)
    return chain.from_iterable(part.rows for part in split.parts), split.drops


def text_of(ids: np.ndarray, learned: np.ndarray, tokenizer: Any, coloured: bool) -> str:
    """What the tokens say, each run of learned ones marked."""
    said = ((tokenizer.decode(part, clean_up_tokenization_spaces=False), mark) for part, mark in _runs(ids, learned))
    return ''.join(_marked(text, mark, coloured) for text, mark in said)


def numbers(ids: np.ndarray, learned: np.ndarray, coloured: bool) -> str:
    return ' '.join(_marked(' '.join(map(str, part)), mark, coloured) for part, mark in _runs(ids, learned))


def _marked(text: str, learned: bool, coloured: bool) -> str:
    if coloured:
        return f'{LEARNED if learned else CONTEXT}{text}{PLAIN}'
    return f'[{text}]' if learned else text


def _runs(ids: np.ndarray, learned: np.ndarray) -> Iterator[tuple[list[int], bool]]:
    """Neighbours that are learned, or are not, together."""
    edges = [0, *(np.flatnonzero(np.diff(learned)) + 1).tolist(), len(ids)]
    for a, b in pairwise(edges):
        yield ids[a:b].tolist(), bool(learned[a])
