"""Writes the training and evaluation conversations of tiny-chat: the same seed gives the same files.

    python examples/tiny-chat/generate.py --output data --rows 100000

writes data/train.jsonl (rows {"messages", "tools"}), data/heldout.jsonl and data/seen.jsonl
(with "task", "language" and "check" besides).
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import arithmetic
import smalltalk
from calls import bystander_row, call_row
from identity import NEUTRAL_SYSTEMS, PERSONA_SYSTEMS, identity_row, persona_row
from instructions import system_row
from questions import fact_row, follow_up_row
from shapes import json_row
from splits import Draw, Row
from vocabulary import assistant, firm

Maker = Callable[[Draw, str], Row]

# maker, share of the training rows in parts, what evaluation holds out
MIX: tuple[tuple[Maker, int, str], ...] = (
    (fact_row, 230, 'phrases'),
    (arithmetic.sum_row, 190, 'values'),
    (identity_row, 60, 'phrases'),
    (persona_row, 100, 'values'),
    (system_row, 150, 'values'),
    (json_row, 120, 'values'),
    (call_row, 140, 'values'),
    (bystander_row, 60, 'phrases'),
    (follow_up_row, 20, 'phrases'),
    (arithmetic.story_row, 30, 'values'),
    (smalltalk.greeting_row, 30, 'phrases'),
    (smalltalk.unknown_row, 45, 'phrases'),
    (smalltalk.memory_row, 40, 'values'),
    (smalltalk.story_row, 12, ''),
    (smalltalk.counting_row, 12, ''),
    (smalltalk.echo_row, 170, ''),
)
PLAIN: tuple[Maker, ...] = (
    fact_row,
    arithmetic.sum_row,
    identity_row,
    smalltalk.greeting_row,
    smalltalk.unknown_row,
    follow_up_row,
    smalltalk.memory_row,
)
PLAIN_WEIGHTS = (6, 4, 3, 3, 1, 1, 2)


def with_system(draw: Draw, row: Row) -> Row:
    """Sometimes a system prompt that does not change the answer."""
    if row.messages[0]['role'] == 'system' or not draw.chance(0.2):
        return row
    if row.task == 'identity' or draw.chance(0.6):
        system = draw.one(NEUTRAL_SYSTEMS[row.language])
    else:
        names = {'n': assistant(draw.rng, row.language), 'm': firm(draw.rng, row.language)}
        system = draw.one(PERSONA_SYSTEMS[row.language].seen).format(**names)
    return replace(row, messages=[{'role': 'system', 'content': system}, *row.messages])


def several_turns(draw: Draw, row: Row) -> Row:
    """The row after some unrelated turns, mostly of its language."""
    if row.tools is not None or row.messages[0]['role'] == 'system':
        return row
    history = []
    for _ in range(draw.rng.choice((1, 1, 1, 2, 2, 3, 4, 6))):
        language = row.language if draw.chance(0.9) else draw.one(('en', 'zh'))
        earlier = draw.rng.choices(PLAIN, PLAIN_WEIGHTS)[0](Draw(draw.rng), language)
        history += [message for message in earlier.messages if message['role'] != 'system']
    return replace(row, messages=history + row.messages)


def rows(draw: Draw, count: int) -> Iterator[Row]:
    """Training rows in the proportions of MIX."""
    makers, weights = [maker for maker, _, _ in MIX], [weight for _, weight, _ in MIX]
    for _ in range(count):
        row = draw.rng.choices(makers, weights)[0](draw, draw.one(('en', 'zh')))
        if draw.chance(0.15):
            row = several_turns(draw, row)
        yield with_system(draw, row)


def evaluation(seed: int, per_task: int, held: bool) -> Iterator[Row]:
    """Rows for scoring: `per_task` per entry of MIX, half of them English; a quarter comes after other turns."""
    for index, (maker, _, side) in enumerate(MIX):
        draw = Draw(random.Random(f'{seed}:{index}'), side if held else '')
        for number in range(per_task):
            row = maker(draw, ('en', 'zh')[number % 2])
            yield several_turns(draw, row) if number % 8 in (3, 6) else row


def write(path: Path, selected: Iterator[Row], scored: bool) -> Counter[str]:
    counts: Counter[str] = Counter()
    with path.open('w', encoding='utf-8') as file:
        for row in selected:
            counts[row.task] += 1
            record: dict[str, Any] = {'messages': row.messages} | ({'tools': row.tools} if row.tools else {})
            if scored:
                record |= {'task': row.task, 'language': row.language, 'check': row.check}
            file.write(json.dumps(record, ensure_ascii=False) + '\n')
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, default=Path('data'), help='folder to write to')
    parser.add_argument('--rows', type=int, default=100_000, help='number of training conversations')
    parser.add_argument('--eval-rows', type=int, default=200, help='evaluation conversations per kind of row')
    parser.add_argument('--seed', type=int, default=42)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    train = write(args.output / 'train.jsonl', rows(Draw(random.Random(args.seed)), args.rows), scored=False)
    for name, held in (('heldout', True), ('seen', False)):
        write(args.output / f'{name}.jsonl', evaluation(args.seed + 1 + held, args.eval_rows, held), scored=True)
    print(', '.join(f'{task} {count}' for task, count in train.most_common()))


if __name__ == '__main__':
    main()
