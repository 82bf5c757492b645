"""The rows to measure on: questions with their labels, in named sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftlite.data.rows import SUFFIXES, Drops, Row, load_rows, names
from swiftlite.data.split import read_split
from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.eval.calls import as_text

if TYPE_CHECKING:
    from swiftlite.args.eval import EvalArgs

PATTERNS = ('general_qa', 'ceval')


@dataclass(frozen=True)
class Item:
    """A row. `messages` ends with the query and is empty where there is none; `label` is the answer to it.

    whole: the conversation with its answers, for the likelihood of these. choices: letters of a multiple-choice row.
    """

    messages: list[dict[str, Any]]
    label: str | None
    whole: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None
    where: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvalSet:
    """Rows measured together, and those that could not be read."""

    name: str
    items: list[Item]
    drops: Drops = field(default_factory=Drops)

    @property
    def digest(self) -> str:
        """What the rows are, in 16 hex digits: the same for the same rows in any file."""
        rows = [[item.whole, item.tools] for item in self.items]
        return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode('utf-8', 'surrogatepass')).hexdigest()[:16]


def read_sets(args: EvalArgs) -> list[EvalSet]:
    """The data that `args` names, --eval_limit rows of each set.

    Raises UsageError for data that is not there and a --custom_eval_config that is none, SwiftliteError where a set has
    no row that can be measured.
    """
    who = names(args.model_name, args.model_author)
    named = [(_title(spec), [spec]) for spec in args.eval_dataset]
    if args.custom_eval_config is not None:
        named += _custom(args.custom_eval_config)
    sets = []
    for name, specs in named:
        drops = Drops()
        sets.append(_set(name, load_rows(specs, who, args.dataset_seed, drops, answered=False), drops, args))
    if args.dataset or args.val_dataset:
        split = read_split(args, training=False, answered=False)
        title = '+'.join(map(_title, args.val_dataset)) or f'{"+".join(map(_title, args.dataset))}-held-out'
        sets.append(_set(title, split.held_out, split.held_out_drops, args))
    if not sets:  # a checkpoint that is there says which data, or is refused
        args.source()
        raise UsageError(f"--load_dataset_config: '{args.ckpt_dir}' names no data")
    return _apart(sets)


def _set(name: str, rows: Sequence[Row], drops: Drops, args: EvalArgs) -> EvalSet:
    items = [item for row in rows if (item := _item(row, drops)) is not None]
    if not items:
        raise SwiftliteError(f"'{name}' has no row to measure on: {'; '.join(drops.lines()) or 'it is empty'}")
    return EvalSet(name, items[: args.eval_limit], drops)


def _item(row: Row, drops: Drops) -> Item | None:
    *before, last = row.messages
    if last['role'] == 'text':
        return Item([], last['content'], row.messages, None, row.where)
    if last['role'] != 'assistant':
        drops.add('there is no answer to compare with', row.where)
        return None
    label = as_text(last['content'], last.get('tool_calls'))
    asked = before if any(message['role'] == 'user' for message in before) else []
    choices = tuple(asked[-1].get('choices', ())) if asked else ()
    return Item(asked, label, row.messages, row.tools, row.where, choices)


def _custom(file: str) -> list[tuple[str, list[str]]]:
    """(name, files) of each entry of ms-swift's custom_eval_config; a folder is a set for each of its files."""
    try:
        entries = json.loads(Path(file).read_text(encoding='utf-8'))
    except OSError as error:
        raise UsageError(f"--custom_eval_config '{file}' cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise UsageError(f"--custom_eval_config '{file}', line {error.lineno} is not valid JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--custom_eval_config '{file}' is not UTF-8 text") from None
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"--custom_eval_config '{file}' must hold a list of {{name, pattern, dataset}} objects")
    found = []
    for number, entry in enumerate(entries, 1):
        where = f"--custom_eval_config '{file}', entry {number}"
        if not isinstance(entry, dict):
            raise UsageError(f'{where} is no object with name, pattern and dataset')
        for key in entry:
            if key not in ('name', 'pattern', 'dataset'):
                raise UsageError(f"{where}: there is no key '{key}'{nearest(key, ('name', 'pattern', 'dataset'))}")
        for key in ('name', 'dataset'):
            if not isinstance(entry.get(key), str) or not entry[key]:
                raise UsageError(f"{where} needs a '{key}'")
        pattern = entry.get('pattern', PATTERNS[0])
        if pattern not in PATTERNS:
            raise UsageError(f"{where}: pattern is {' or '.join(PATTERNS)}, not '{pattern}'")
        found += _files(entry['name'], entry['dataset'], pattern, where)
    return found


def _files(name: str, source: str, pattern: str, where: str) -> list[tuple[str, list[str]]]:
    path = Path(source).expanduser()
    if not path.is_dir():
        return [(name, [source])]
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if pattern == 'ceval':  # the examples that others put into the prompt lie beside the questions
        files = [file for file in files if not file.stem.endswith('_dev')]
    if not files:
        raise UsageError(f"{where}: the folder '{source}' holds no {', '.join(SUFFIXES)} file")
    return [(f'{name}/{file.stem.removesuffix("_val")}', [str(file)]) for file in files]


def _title(spec: str) -> str:
    source, mark, _ = spec.rpartition('#')
    stem = Path(source if mark and not Path(spec).is_file() else spec).name
    return stem.rsplit('.', 1)[0] if stem.lower().endswith(SUFFIXES) else stem


def _apart(sets: list[EvalSet]) -> list[EvalSet]:
    """Names that occur twice are numbered."""
    seen: dict[str, int] = {}
    found = []
    for each in sets:
        seen[each.name] = seen.get(each.name, 0) + 1
        found.append(replace(each, name=f'{each.name}-{seen[each.name]}' if seen[each.name] > 1 else each.name))
    return found
