"""Records of jsonl, json, csv and parquet files."""

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftlite.errors import SwiftliteError

SUFFIXES = ('.jsonl', '.json', '.csv')
PARQUET = '.parquet'


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


def records(path: Path, drops: Drops | None) -> Iterator[tuple[str, Any]]:
    """('my.jsonl, line 3', record) of a data file. Lines that are no JSON are counted; without `drops`, refused.

    Raises:
        SwiftliteError: the file cannot be read as what its suffix says.
    """
    match path.suffix.lower():
        case '.jsonl':
            unit, numbered = 'line', _jsonl(path, drops)
        case '.json':
            unit, numbered = 'row', enumerate(_json(path), 1)
        case '.parquet':
            unit, numbered = 'row', enumerate(_parquet(path), 1)
        case _:
            unit, numbered = 'row', enumerate(_csv(path), 2)  # the first line holds the names of the columns
    for number, record in numbered:
        yield f'{path}, {unit} {number}', record


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise SwiftliteError(f'{path} is not UTF-8 text (byte {error.start})') from error
    except OSError as error:
        raise SwiftliteError(f'{path} cannot be read: {error.strerror}') from error


def _jsonl(path: Path, drops: Drops | None) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_text(path).split('\n'), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            if drops is None:
                raise SwiftliteError(f'{path}, line {number} is not valid JSON: {error}') from error
            drops.add('broken JSON', f'{path}, line {number}')


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


def _parquet(path: Path) -> list[dict[str, Any]]:
    if importlib.util.find_spec('pyarrow') is None:
        raise SwiftliteError(f'{path} is a parquet file, which needs pyarrow: pip install pyarrow, or give it as jsonl')
    from pyarrow import ArrowException, parquet  # type: ignore[import-not-found]

    try:
        return parquet.read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise SwiftliteError(f'{path} is no parquet file that can be read: {str(error).splitlines()[0]}') from error
