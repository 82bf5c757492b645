"""Data files and named data sets read into conversations, with every row that is left out counted."""

import csv
import io
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftlite.data.columns import RowError, to_conversation
from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.registry.datasets import DATASETS, DatasetInfo

SUFFIXES = ('.jsonl', '.json', '.csv')


@dataclass(frozen=True)
class Row:
    """One conversation in the shape `Template` takes."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    where: str  # 'my.jsonl, line 3'


@dataclass
class Drops:
    """Why rows were left out: reason -> (count, where it happened first)."""

    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        count, first = self.reasons.get(reason, (0, where))
        self.reasons[reason] = (count + 1, first)

    def merge(self, other: 'Drops') -> None:
        for reason, (count, where) in other.reasons.items():
            mine, first = self.reasons.get(reason, (0, where))
            self.reasons[reason] = (mine + count, first)

    @property
    def total(self) -> int:
        return sum(count for count, _ in self.reasons.values())

    def lines(self) -> list[str]:
        """'3 x no assistant message (first: my.jsonl, line 7)', most frequent first."""
        ordered = sorted(self.reasons.items(), key=lambda item: -item[1][0])
        return [f'{count} x {reason} (first: {first})' for reason, (count, first) in ordered]


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
    """The rows of `name`, `path`, `name#N`, `path#N` in the order given; #N draws N rows, repeated if there are fewer.

    With `answered` off, rows of files need no answer.

    Raises:
        UsageError: a name or file that does not exist, a count that is none, or names missing for self-cognition.
        SwiftliteError: a file cannot be read as what its suffix says.
    """
    rows: list[Row] = []
    for spec in specs:
        source, count = _parse(spec)
        found = _named(source, who) if source in DATASETS else _from_file(_existing(source), drops, answered)
        rows.extend(found if count is None else _draw(found, count, seed))
    return rows


def _parse(spec: str) -> tuple[str, int | None]:
    source, mark, number = spec.rpartition('#')
    if not mark or Path(spec).is_file():
        return spec, None
    if not number.isdigit() or int(number) == 0:
        raise UsageError(f"--dataset '{spec}': a positive number of rows is expected after #, not '{number}'")
    return source, int(number)


def _existing(source: str) -> Path:
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return path
    if path.is_file():
        raise UsageError(f"--dataset '{source}' is no {', '.join(SUFFIXES)} file")
    folder = path.parent if path.parent.is_dir() else Path()
    options = [*DATASETS, *(str(file) for file in folder.iterdir() if file.suffix.lower() in SUFFIXES)]
    hint = nearest(source, options)
    raise UsageError(f"--dataset '{source}' is neither a file nor one of {', '.join(DATASETS)}{hint}")


def _draw(rows: list[Row], count: int, seed: int) -> list[Row]:
    """`count` rows at random: all of them as often as they fit, then a sample without repetition."""
    if not rows:
        return []
    whole, rest = divmod(count, len(rows))
    return rows * whole + random.Random(seed).sample(rows, rest)


def _named(name: str, who: Names | None) -> list[Row]:
    info: DatasetInfo = DATASETS[name]
    if info.needs_names and who is None:
        raise UsageError(f'--dataset {name} needs --model_name and --model_author (a Chinese and an English one each)')
    path = Path(__file__).parent.parent / 'assets' / info.asset
    by_language: dict[str, list[Row]] = {}
    for number, record in enumerate(_jsonl(path, None), 1):
        language = record.get('language', 'en')
        if who is not None:
            record = {key: _fill(value, who, language) for key, value in record.items()}
        conversation = to_conversation(record)
        by_language.setdefault(language, []).append(Row(*conversation, where=f'{name}, line {number}'))
    return _alternate(list(by_language.values()))


def _fill(text: str, who: Names, language: str) -> str:
    return text.replace('{{NAME}}', who.name[language]).replace('{{AUTHOR}}', who.author[language])


def _alternate(groups: list[list[Row]]) -> list[Row]:
    """One row of each group in turn; the rest of longer groups at the end."""
    longest = max(map(len, groups))
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _from_file(path: Path, drops: Drops, answered: bool) -> list[Row]:
    rows = []
    unit = 'line' if path.suffix.lower() == '.jsonl' else 'row'
    for number, record in _records(path, drops):
        where = f'{path}, {unit} {number}'
        try:
            rows.append(Row(*to_conversation(record, answered), where=where))
        except RowError as error:
            drops.add(str(error), where)
    return rows


def _records(path: Path, drops: Drops) -> Iterator[tuple[int, Any]]:
    """(line or row number from 1, record) of a data file."""
    match path.suffix.lower():
        case '.jsonl':
            yield from _numbered_jsonl(path, drops)
        case '.json':
            yield from enumerate(_json(path), 1)
        case _:
            yield from enumerate(_csv(path), 2)  # the first line holds the names of the columns


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise SwiftliteError(f'{path} is not UTF-8 text (byte {error.start})') from error
    except OSError as error:
        raise SwiftliteError(f'{path} cannot be read: {error.strerror}') from error


def _numbered_jsonl(path: Path, drops: Drops | None) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_text(path).split('\n'), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            if drops is None:
                raise SwiftliteError(f'{path}, line {number} is not valid JSON: {error}') from error
            drops.add('broken JSON', f'{path}, line {number}')


def _jsonl(path: Path, drops: Drops | None) -> Iterator[Any]:
    for _, record in _numbered_jsonl(path, drops):
        yield record


def _json(path: Path) -> list[Any]:
    text = _text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == 'Extra data' and error.lineno > 1:
            raise SwiftliteError(f'{path} holds one JSON value a line: name it {path.stem}.jsonl') from error
        raise SwiftliteError(f'{path}, line {error.lineno} is not valid JSON: {error.msg}') from error
    except (ValueError, RecursionError) as error:
        raise SwiftliteError(f'{path} is not JSON that can be read: {error}') from error
    if not isinstance(value, list):
        what = 'an object' if isinstance(value, dict) else 'one value'
        raise SwiftliteError(f'{path} holds {what} where a list of rows is expected')
    return value


def _csv(path: Path) -> Iterator[dict[str | None, Any]]:
    """Values by column; those beyond the last column stand under None."""
    csv.field_size_limit(sys.maxsize)
    try:
        for record in csv.DictReader(io.StringIO(_text(path), newline='')):
            yield {key: value for key, value in record.items() if value not in (None, '')}
    except csv.Error as error:
        raise SwiftliteError(f'{path} is not valid CSV: {error}') from error
