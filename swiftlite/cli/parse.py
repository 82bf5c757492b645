"""A dataclass as a command line: ``--flag value``, ``--list a b``, ``--flag true|false``, ``--config file.yaml``."""

import json
import logging
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from swiftlite.args.checkpoint import recover
from swiftlite.args.fields import Args
from swiftlite.args.refused import TABLES, known_flags
from swiftlite.errors import UsageError, nearest
from swiftlite.registry.resolve import find_model
from swiftlite.registry.vllm_flags import SHORT

A = TypeVar('A', bound=Args)
TRUE, FALSE, NONE = ('true', 'yes', '1', 'on'), ('false', 'no', '0', 'off'), ('none', 'null', '~')
KINDS = {int: 'N', float: 'X', str: 'TEXT', bool: 'true|false', dict: 'JSON'}  # what --help calls a value
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flag:
    """One field of a command's dataclass, as the command line sees it."""

    name: str
    kind: type  # of one value: str, int, float, bool or dict (JSON)
    is_list: bool
    optional: bool
    metadata: Mapping[str, Any]
    default: Any

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.metadata['aliases'])

    def shown_default(self) -> str | None:
        """The default as it would be typed; None where there is none."""
        if self.default in (None, []):
            return None
        text = ' '.join(map(str, self.default)) if self.is_list else str(self.default)
        return text.lower() if self.kind is bool else text


def flags(cls: type[Args]) -> list[Flag]:
    """The flags of a command, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    return [_flag(f.name, hints[f.name], f) for f in fields(cls)]


def parse(cls: type[A], argv: Sequence[str], command: str) -> A:
    """Build `cls` from the words after the command.

    The command line wins over ``--config``, which wins over what the checkpoint in ``--ckpt_dir`` recorded. UsageError
    (one sentence, with the nearest flag) for anything that is not understood.
    """
    words = list(argv)
    if words and is_config(words[0]):
        words.insert(0, '--config')
    table = flags(cls)
    typed, config = _read(cls, _split(table, words, command), command)
    values: dict[str, Any] = {}
    for file in config:
        values |= _read_config(cls, file, command)
    return cls(**recover(cls, values | typed))


def is_config(word: str) -> bool:
    """Whether a first word without a flag is a file for ``--config``."""
    return word.endswith(('.yaml', '.yml', '.json')) and not word.startswith('-')


def coerce(flag: Flag, texts: Sequence[str]) -> Any:
    """The texts given for a flag as its value; UsageError says what the flag takes."""
    if flag.is_list:
        if separator := flag.metadata['split']:
            texts = [part for text in texts for part in text.split(separator) if part]
        if not texts:
            raise UsageError(f'--{flag.name} needs at least one value')
        return [_one(flag, text) for text in texts]
    if not texts and flag.kind is bool:
        return True
    if len(texts) != 1:
        given = f'not {len(texts)} ({" ".join(texts)})' if texts else 'and none is given'
        raise UsageError(f'--{flag.name} takes one value, {given}')
    if flag.optional and texts[0].lower() in (*NONE, *(('auto',) if flag.kind is bool else ())):
        return None
    return _one(flag, texts[0])


def _flag(name: str, hint: Any, field: Any) -> Flag:
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        optional, hint = True, parts[0]
    is_list = typing.get_origin(hint) is list
    if is_list:
        (hint,) = typing.get_args(hint)
    if typing.get_origin(hint) is dict:
        hint = dict
    default = field.default_factory() if callable(field.default_factory) else field.default
    return Flag(name, hint, is_list, optional, field.metadata, default)


def _split(table: Iterable[Flag], words: Sequence[str], command: str) -> list[tuple[str, list[str]]]:
    """(flag as typed, its values) pairs. A value that starts with ``--`` is written ``--flag=--value``."""
    short = {alias for flag in table for alias in flag.metadata['aliases'] if alias.startswith('-')}
    short |= {letters for letters, name in SHORT.items() if name in TABLES.get(command, {})}
    positional = [flag.name for flag in table if flag.metadata['positional']]
    found: list[tuple[str, list[str]]] = []
    for word in words:
        if word in short or (word.startswith('--') and len(word) > 2):
            name, mark, value = word.partition('=')
            found.append((name, [value] if mark else []))
        elif found and (found[-1][0].startswith('-') or not positional):
            found[-1][1].append(word)
        elif positional:
            found.append((positional.pop(0), [word]))
        else:
            names = [flag.name for flag in table]
            hint = nearest(word, names)
            if 'model_id_or_path' in names and find_model(word) is not None:
                hint = f"; did you mean '--model {word}'?"
            raise UsageError(f"'{word}' is no flag: flags start with --{hint}")
    return found


def _read(cls: type[Args], pairs: Iterable[tuple[str, list[str]]], command: str) -> tuple[dict[str, Any], list[str]]:
    """(value of each field that is given, config files)."""
    table = flags(cls)
    names = {_key(name): flag for flag in table for name in flag.names}
    texts: dict[str, list[str]] = {}
    config: list[str] = []
    by_name = {flag.name: flag for flag in table}
    for typed, values in pairs:
        key = _key(typed)
        if key == 'config' and key not in names:
            if len(values) != 1:
                raise UsageError('--config takes one file')
            config += values
        elif key in names:
            name = names[key].name
            # a list may be given in several parts; of anything else the last one counts
            texts[name] = texts.get(name, []) + values if names[key].is_list else values
        elif key.startswith('no_') and key[3:] in names and names[key[3:]].kind is bool and not values:
            texts[names[key[3:]].name] = ['false']
        else:
            _unknown(cls, typed, values, names, command)
    return {name: coerce(by_name[name], given) for name, given in texts.items()}, config


def _unknown(cls: type[Args], typed: str, values: list[str], names: Mapping[str, Flag], command: str) -> None:
    """A notice for a flag that means nothing here, none for a refused feature turned off; UsageError for the rest."""
    known = known_flags(command, cls)
    # vLLM also writes --compilation-config.level 3, and --no-x for a switch
    key = _key(SHORT.get(typed, typed)).lower().partition('.')[0]
    if key not in known and key.startswith('no_') and not values:
        key, values = key[3:], ['false']
    if key not in known:
        options = [f'--{name}' for name in (*names, 'config', 'help')]
        hint = nearest(f'--{_key(typed)}', options) or f"; 'swiftlite {command} --help' lists all"
        raise UsageError(f'swiftlite {command} has no flag {typed}{hint}')
    row = known[key]
    if row.accepts(' '.join(values) if values else None):
        if row.needless:
            log.warning('%s has no effect: %s', ' '.join([typed, *values]), row.reason)
        return
    if row.needless:
        given = f"not '{' '.join(values)}'{nearest(' '.join(values), row.values)}" if values else 'and none is given'
        raise UsageError(f'{typed} takes {", ".join(row.values)}, {given}')
    raise UsageError(f'{typed} is not supported by swiftlite {command}: {row.reason}')


def _read_config(cls: type[Args], file: str, command: str) -> dict[str, Any]:
    """The fields given in a YAML or JSON file, coerced as the same text on the command line would be."""
    import yaml

    try:
        # BaseLoader keeps scalars as text, so that 1e-5 is a number and 007 a name
        text = Path(file).read_text(encoding='utf-8')
        content = yaml.load(text, Loader=yaml.BaseLoader)
        if double := _written_twice(yaml.compose(text, Loader=yaml.BaseLoader)):
            raise UsageError(f"--config '{file}' has '{double}' twice: leave one")
    except FileNotFoundError:
        path = Path(file)
        beside = (
            [str(path.parent / f.name) for f in path.parent.iterdir() if is_config(f.name)]
            if path.parent.is_dir()
            else []
        )
        raise UsageError(f"--config '{file}' is no file{nearest(file, beside)}") from None
    except OSError as error:
        raise UsageError(f"--config '{file}' cannot be read: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        line = f', line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise UsageError(f"--config '{file}'{line} is no YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--config '{file}' is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UsageError(f"--config '{file}' must hold one flag a line, as 'name: value'")
    _set_environment(content.pop('ENV', {}), file)
    try:
        values, more = _read(cls, [(f'--{key}', _texts(value)) for key, value in content.items()], command)
        if more:
            raise UsageError(
                f"it names another file, '{more[0]}': give both on the command line, --config a --config b"
            )
        return values
    except UsageError as error:
        raise UsageError(f"in --config '{file}': {error}") from None


def _written_twice(node: Any) -> str | None:
    """A key that the mapping at the top of a YAML file has twice; the first one would be lost."""
    keys = [key.value for key, _ in node.value] if node is not None and node.id == 'mapping' else []
    return next((key for index, key in enumerate(keys) if key in keys[:index]), None)


def _set_environment(variables: Any, file: str) -> None:
    """What stands under ENV in a config file; a variable that is set already keeps its value."""
    if not isinstance(variables, dict) or not all(isinstance(value, str) for value in variables.values()):
        raise UsageError(f"in --config '{file}': ENV must hold one variable a line, as 'NAME: value'")
    for name, value in variables.items():
        if not name or '=' in name or '\0' in name + value:
            raise UsageError(f"in --config '{file}': ENV cannot set a variable named '{name}'")
        os.environ.setdefault(name, value)


def _texts(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return [json.dumps(value, ensure_ascii=False)] if isinstance(value, dict) else [str(value)]


def _one(flag: Flag, text: str) -> Any:
    if flag.kind is str:
        return text
    if flag.kind is bool:
        if text.lower() in TRUE + FALSE:
            return text.lower() in TRUE
        raise UsageError(f"--{flag.name} takes true or false, not '{text}'")
    what = {int: 'a whole number', float: 'a number', dict: 'a JSON object'}[flag.kind]
    try:
        value = json.loads(text) if flag.kind is dict else flag.kind(text)
        if flag.kind is dict and not isinstance(value, dict):
            raise ValueError
    except ValueError:
        raise UsageError(f"--{flag.name} takes {what}, not '{text}'") from None
    return value


def _key(name: str) -> str:
    return name.lstrip('-').replace('-', '_')
