"""Data files and named data sets read into conversations, with every row that is left out counted."""

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from swiftlite.data.columns import RowError, to_conversation
from swiftlite.data.files import SUFFIXES, Drops, records
from swiftlite.data.mix import repeats
from swiftlite.data.sources import Source, parse
from swiftlite.errors import UsageError

__all__ = ['SUFFIXES', 'Drops', 'Names', 'Part', 'Row', 'load_parts', 'load_rows', 'names', 'repeated']


@dataclass(frozen=True)
class Row:
    """One conversation in the shape `Template` takes."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    where: str  # 'my.jsonl, line 3'

    @cached_property
    def key(self) -> bytes:
        """The same for rows that say the same."""
        text = json.dumps([self.messages, self.tools], ensure_ascii=False, sort_keys=True, default=str)
        return hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=16).digest()


@dataclass(frozen=True)
class Part:
    """What one value of --dataset brings: distinct places in its files, and how many rows are wanted of them."""

    rows: list[Row]
    count: int  # above len(rows): rows come several times


@dataclass(frozen=True)
class Names:
    """Who the model shall be (--model_name, --model_author): by language."""

    name: Mapping[str, str]
    author: Mapping[str, str]


def names(model_name: Sequence[str] | None, model_author: Sequence[str] | None) -> Names | None:
    """Values `zh en`, or one for both languages; None where neither is given.

    Raises:
        UsageError: one of the two is missing, or more than two values are given.
    """
    given = {'--model_name': list(model_name or []), '--model_author': list(model_author or [])}
    if not any(given.values()):
        return None
    for flag, values in given.items():
        if len(values) not in (1, 2) or not all(value.strip() for value in values):
            shown = ' '.join(map(repr, values)) or 'nothing'
            raise UsageError(f'{flag} takes a Chinese and an English name, or one for both, not {shown}')
    pairs = [{'zh': values[0], 'en': values[-1]} for values in given.values()]
    return Names(*pairs)


def load_rows(specs: Sequence[str], who: Names | None, seed: int, drops: Drops, *, answered: bool = True) -> list[Row]:
    """The rows of `name`, `path`, `HF::id:subset#N`, … in the order given; #N draws N, repeated if there are fewer.

    With `answered` off, rows of files need no answer.

    Raises:
        UsageError: a name or file that does not exist, a count that is none, or names missing for self-cognition.
        SwiftliteError: a file cannot be read as what its suffix says, or fetched.
    """
    return [row for part in load_parts(specs, who, seed, drops, answered=answered) for row in repeated(part, seed)]


def load_parts(
    specs: Sequence[str], who: Names | None, seed: int, drops: Drops, *, answered: bool = True
) -> list[Part]:
    """As `load_rows`, before rows come several times: rows that are there, or the sample of them that is wanted."""
    parts = []
    for source in [parse(spec) for spec in specs]:
        rows = _named(source, who) if source.info.needs_names else _rows(source, drops, answered)
        count = len(rows) if source.count is None or not rows else source.count
        if count < len(rows):
            rows = random.Random(seed).sample(rows, count)
        parts.append(Part(rows, count))
    return parts


def repeated(part: Part, seed: int) -> list[Row]:
    """`count` rows: all as often as they fit, then a sample without repetition."""
    return [part.rows[place] for place in repeats(len(part.rows), part.count, seed)]


def _named(source: Source, who: Names | None) -> list[Row]:
    """Rows with names filled in, the languages in turn."""
    if who is None:
        raise UsageError(
            f'the data set {source.name} needs --model_name and --model_author (a Chinese and an English one each)'
        )
    by_language: dict[str, list[Row]] = {}
    for number, (_, record) in enumerate(records(source.files()[0], None), 1):
        language = record.get('language', 'en')
        record = {key: _fill(value, who, language) for key, value in record.items()}
        conversation = to_conversation(record)
        by_language.setdefault(language, []).append(Row(*conversation, where=f'{source.name}, line {number}'))
    return _alternate(list(by_language.values()))


def _fill(text: str, who: Names, language: str) -> str:
    return text.replace('{{NAME}}', who.name[language]).replace('{{AUTHOR}}', who.author[language])


def _alternate(groups: list[list[Row]]) -> list[Row]:
    """One row of each group in turn; the rest of longer groups at the end."""
    longest = max(map(len, groups))
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _rows(source: Source, drops: Drops, answered: bool) -> list[Row]:
    rows = []
    for file in source.files():
        for where, record in records(file, drops):
            try:
                rows.append(Row(*to_conversation(record, answered, source.info), where=where))
            except RowError as error:
                drops.add(str(error), where)
    return rows
