"""Records of jsonl, json, csv and parquet files, read piece by piece."""

import csv
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TextIO

from swiftlite.errors import SwiftliteError

SUFFIXES = ('.jsonl', '.json', '.csv')
PARQUET = '.parquet'
SHOWN = 20  # reasons that are printed
PIECE = 1 << 20  # characters of a .json file that are looked at together
OTHER_TEXT = (b'\xff\xfe', b'\xfe\xff')  # how UTF-16 and UTF-32 start
NOT_TEXT = re.compile('[\udc80-\udcff]')  # bytes that are no UTF-8


@dataclass
class Drops:
    """Why rows were left out: reason -> (count, where it happened first). With `strict`, the first one is an error."""

    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)
    strict: bool = False

    def add(self, reason: str, where: str) -> None:
        """Count a row that cannot be used. Raises SwiftliteError where none may be."""
        if self.strict:
            raise SwiftliteError(f'{where}: {reason} (--strict true stops at the first row that cannot be used)')
        self.skip(reason, where)

    def skip(self, reason: str, where: str) -> None:
        """Count a row that is left out on purpose."""
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
        """'3 x no assistant message (first: my.jsonl, line 7)', most frequent first; what is beyond SHOWN as a sum."""
        ordered = sorted(self.reasons.items(), key=lambda item: -item[1][0])
        lines = [f'{count} x {reason} (first: {first})' for reason, (count, first) in ordered[:SHOWN]]
        if rest := ordered[SHOWN:]:
            lines.append(f'{sum(count for _, (count, _) in rest)} x {len(rest)} other reasons (first: {rest[0][1][1]})')
        return lines


def records(path: Path, drops: Drops | None) -> Iterator[tuple[str, Any]]:
    """('my.jsonl, line 3', record) of a data file, of which only a piece is in memory at a time.

    Lines that are no JSON or no text are counted; without `drops`, refused.

    Raises:
        SwiftliteError: the file cannot be read as what its suffix says.
    """
    match path.suffix.lower():
        case '.json' if not _one_a_line(path):
            yield from ((f'{path}, row {number}', value) for number, value in enumerate(_json(path), 1))
        case '.parquet':
            yield from ((f'{path}, row {number}', value) for number, value in enumerate(_parquet(path), 1))
        case '.csv':
            yield from _csv(path, drops)
        case _:
            yield from _jsonl(path, drops)


def _unreadable(path: Path, error: OSError) -> SwiftliteError:
    return SwiftliteError(f'{path} cannot be read: {error.strerror}')


@contextmanager
def _text(path: Path, errors: str = 'strict') -> Iterator[TextIO]:
    try:
        with path.open(encoding='utf-8-sig', errors=errors, newline='') as stream:
            yield stream
    except UnicodeDecodeError as error:
        raise SwiftliteError(f'{path} is not UTF-8 text') from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _jsonl(path: Path, drops: Drops | None) -> Iterator[tuple[str, Any]]:
    try:
        stream = path.open('rb')
    except OSError as error:
        raise _unreadable(path, error) from error
    with stream:
        for number, line in enumerate(stream, 1):
            where = f'{path}, line {number}'
            if number == 1:
                if line.startswith(OTHER_TEXT):
                    raise SwiftliteError(f'{path} is not UTF-8 text')
                line = line.removeprefix(b'\xef\xbb\xbf')
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode('utf-8'))
            except UnicodeDecodeError as error:
                if drops is None:
                    raise SwiftliteError(f'{where} is not UTF-8 text') from error
                drops.add('not UTF-8 text', where)
            except (ValueError, RecursionError) as error:
                if drops is None:
                    raise SwiftliteError(f'{where} is not valid JSON: {error}') from error
                drops.add('broken JSON', where)
            else:
                yield where, record


def _json(path: Path) -> Iterator[Any]:
    """The values of the list that a file holds."""
    decoder = json.JSONDecoder()
    with _text(path) as stream:
        text, end, lines = stream.read(PIECE), False, 0  # lines: of what is behind `text`

        def fill() -> bool:
            nonlocal text, end
            more = stream.read(max(PIECE, len(text)))
            text, end = text + more, not more
            return not end

        place, comma = _skip(text, 0), False
        if text[place : place + 1] != '[':
            _no_list(path)
        place += 1
        while True:
            while (place := _skip(text, place)) == len(text) and fill():
                pass
            found = text[place : place + 1]
            try:
                if comma and found == ',':
                    place, comma = place + 1, False
                    continue
                if found == ']' and (comma or not text[:place].rstrip().endswith(',')):
                    break
                if comma or found in ('', ']'):
                    raise json.JSONDecodeError("Expecting ',' delimiter" if comma else 'Expecting value', text, place)
                value, after = decoder.raw_decode(text, place)
                if not text.startswith((',', ']'), _skip(text, after)) and not end and fill():
                    continue  # a number may go on in what was not there yet
            except json.JSONDecodeError as error:
                if not end and fill():
                    continue
                where = f'{path}, line {lines + error.lineno}'
                raise SwiftliteError(f'{where} is not valid JSON: {error.msg}') from error
            except (ValueError, RecursionError) as error:
                raise SwiftliteError(f'{path} is not JSON that can be read: {error}') from error
            yield value
            place, comma = after, True
            if place > PIECE:
                lines += text.count('\n', 0, place)
                text, place = text[place:], 0
        if text[place + 1 :].strip() or stream.read().strip():
            raise SwiftliteError(f'{path} is not valid JSON: there is more behind the list')


def _one_a_line(path: Path) -> bool:
    """Whether a .json file holds an object on each line, as many on the hubs do."""
    with _text(path, errors='replace') as stream:
        lines = (line for line in stream if line.strip())
        first, second = next(lines, ''), next(lines, '')
    return first.lstrip().startswith('{') and first.rstrip().endswith('}') and second.lstrip().startswith('{')


def _skip(text: str, place: int) -> int:
    """The first place from `place` on that is no white space of JSON."""
    while place < len(text) and text[place] in ' \t\r\n':
        place += 1
    return place


def _no_list(path: Path) -> NoReturn:
    """Say what a .json file holds that is no list."""
    with _text(path) as stream:
        text = stream.read()
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise SwiftliteError(f'{path}, line {error.lineno} is not valid JSON: {error.msg}') from error
    except (ValueError, RecursionError) as error:
        raise SwiftliteError(f'{path} is not JSON that can be read: {error}') from error
    what = 'an object' if isinstance(value, dict) else 'one value'
    raise SwiftliteError(f'{path} holds {what} where a list of rows is expected')


def _csv(path: Path, drops: Drops | None) -> Iterator[tuple[str, dict[str | None, Any]]]:
    """Values by column; those beyond the last column stand under None. The first line names the columns."""
    csv.field_size_limit(sys.maxsize)
    with _text(path, errors='surrogateescape') as stream:
        try:
            for number, record in enumerate(csv.DictReader(stream), 2):
                where = f'{path}, row {number}'
                if NOT_TEXT.search(''.join(map(str, record.values()))):
                    if drops is None:
                        raise SwiftliteError(f'{where} is not UTF-8 text')
                    drops.add('not UTF-8 text', where)
                    continue
                yield where, {key: value for key, value in record.items() if value not in (None, '')}
        except csv.Error as error:
            raise SwiftliteError(f'{path} is not valid CSV: {error}') from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    if importlib.util.find_spec('pyarrow') is None:
        raise SwiftliteError(f'{path} is a parquet file, which needs pyarrow: pip install pyarrow, or give it as jsonl')
    from pyarrow import ArrowException, parquet  # type: ignore[import-not-found]

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise SwiftliteError(f'{path} is no parquet file that can be read: {str(error).splitlines()[0]}') from error
