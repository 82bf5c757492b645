"""``dataset_info.json`` as LLaMA-Factory and as ms-swift write it → rows of the table of data sets."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swiftlite.errors import UsageError, nearest
from swiftlite.registry.datasets import DATASETS, DatasetInfo
from swiftlite.registry.register import add

# LLaMA-Factory: what a column is for → where the standard layout has it
ALPACA = {'prompt': 'instruction', 'query': 'input', 'response': 'output', 'system': 'system', 'history': 'history'}
SHAREGPT = {'messages': 'conversations', 'system': 'system', 'tools': 'tools'}
TAGS = {
    'user_tag': 'user',
    'assistant_tag': 'assistant',
    'observation_tag': 'tool',
    'function_tag': 'tool_call',
    'system_tag': 'system',
}
KEYS = {
    *('file_name', 'hf_hub_url', 'ms_hub_url', 'formatting', 'columns', 'tags', 'subset', 'split', 'folder', 'ranking'),
    *('dataset_id', 'ms_dataset_id', 'hf_dataset_id', 'dataset_path', 'dataset_name', 'subsets', 'conversations'),
    *('messages', 'help', 'huge_dataset', 'is_local', 'preprocess_func', 'disable_auto_preprocess', 'hf_revision'),
    *('ms_revision', 'preprocess', 'remove_useless_columns', 'num_samples', 'cloud_file_name', 'script_url'),
}
CODE = ('preprocess_func', 'preprocess', 'script_url')
FORMATS = ('alpaca', 'sharegpt', 'openai')


def register_datasets(content: Any, where: str, folder: Path) -> None:
    """Add the data sets of a ``dataset_info.json``: {name: entry}, or ms-swift 3.x's list of entries.

    Files are relative to `folder`. Raises UsageError, one sentence, for an entry that says not where its rows are, that
    needs code, or whose fields are unknown.
    """
    if isinstance(content, Mapping):
        entries = list(content.items())
    elif isinstance(content, list):
        entries = [(_name(entry), entry) for entry in content]
    else:
        raise UsageError(f'{where} must hold an object of data sets by name, or a list of them')
    for name, entry in entries:
        place = f'{where}, {name!r}'
        if not isinstance(entry, Mapping):
            raise UsageError(f'{place} is no object')
        for key in entry:
            if key not in KEYS:
                raise UsageError(f'{place} has no field {key!r}{nearest(key, KEYS) or ": it is not known"}')
            if key in CODE and entry[key]:
                raise UsageError(f"{place} has '{key}', but no code is loaded from outside: name its columns instead")
        if entry.get('ranking'):
            raise UsageError(f'{place} holds answers to choose between (ranking), and the only training is supervised')
        add(DATASETS, str(name), _row(str(name), entry, place, folder), place)


def _name(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return '?'
    for key in ('dataset_name', 'ms_dataset_id', 'hf_dataset_id', 'dataset_id'):
        if entry.get(key):
            return str(entry[key])
    return Path(str(entry.get('dataset_path', '?'))).stem


def _row(name: str, entry: Mapping[str, Any], place: str, folder: Path) -> DatasetInfo:
    path = entry.get('file_name') or entry.get('dataset_path')
    ms_id = entry.get('ms_hub_url') or entry.get('ms_dataset_id') or entry.get('dataset_id')
    hf_id = entry.get('hf_hub_url') or entry.get('hf_dataset_id')
    if not (path or ms_id or hf_id):
        raise UsageError(f'{place} says not where its rows are: give a file_name, or the id of a hub')
    columns, layout = _columns(entry, place)
    subset = entry.get('subset') or next(iter(entry.get('subsets') or []), None)
    split = entry.get('split') or 'train'
    return DatasetInfo(
        name,
        path=os.path.join(folder, os.path.expanduser(str(path))) if path else None,
        ms_id=ms_id,
        hf_id=hf_id,
        revision=entry.get('ms_revision') or entry.get('hf_revision'),
        subset=str(subset) if subset else None,
        split=split[0] if isinstance(split, list) else split,
        columns=columns,
        help=str(entry.get('help') or ''),
        **layout,
    )


def _columns(entry: Mapping[str, Any], place: str) -> tuple[dict[str, str], dict[str, Any]]:
    """(columns of the file → standard columns, how turns are written)."""
    given = _texts(entry.get('columns'), place, 'columns')
    if 'formatting' in entry or 'file_name' in entry or 'hf_hub_url' in entry or isinstance(entry.get('tags'), Mapping):
        return _llama_factory(entry, given, place)
    turns = entry.get('conversations') or entry.get('messages') or {}
    if isinstance(turns, Mapping) and turns:
        turns = _texts(turns, place, 'conversations')
        key = turns.get('conversations_key') or turns.get('messages_key') or 'conversations'
        roles = {turns[f'{role}_role']: role for role in ('user', 'assistant', 'system') if f'{role}_role' in turns}
        names = {
            'roles': roles,
            'role_key': turns.get('from_key') or turns.get('role_key'),
            'content_key': turns.get('value_key') or turns.get('content_key'),
        }
        return {**given, key: 'conversations'}, names
    return given, {}


def _llama_factory(
    entry: Mapping[str, Any], given: dict[str, str], place: str
) -> tuple[dict[str, str], dict[str, Any]]:
    kind = entry.get('formatting', 'alpaca')
    if kind not in FORMATS:
        raise UsageError(f"{place}: valid for 'formatting' are {', '.join(FORMATS)}, not {kind!r}")
    table = ALPACA | {'tools': 'tools'} if kind == 'alpaca' else SHAREGPT
    media = [use for use in ('images', 'videos', 'audios') if use in given]
    if media:
        raise UsageError(f"{place} has '{media[0]}', but models read text")
    for use in given:
        if use not in table:
            raise UsageError(f"{place}: 'columns' has no {use!r}; valid are {', '.join(table)}{nearest(use, table)}")
    columns = {column: table[use] for use, column in given.items() if column != table[use]}
    if kind == 'alpaca' and given.get('prompt') == 'text' and 'response' not in given:
        columns = {}  # text to learn from, not to answer
    tags = _texts(entry.get('tags'), place, 'tags')
    for tag in tags:
        if tag not in (*TAGS, 'role_tag', 'content_tag'):
            raise UsageError(f"{place}: 'tags' has no {tag!r}{nearest(tag, (*TAGS, 'role_tag', 'content_tag'))}")
    roles = {tags[tag]: role for tag, role in TAGS.items() if tag in tags}
    keys = {'role_key': tags.get('role_tag'), 'content_key': tags.get('content_tag')}
    return columns, {'roles': roles, **keys} if kind != 'alpaca' else {}


def _texts(value: Any, place: str, name: str) -> dict[str, str]:
    if value is None or (name == 'tags' and isinstance(value, list)):  # ms-swift's tags are for search
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in (*value, *value.values())):
        raise UsageError(f"{place}: '{name}' must map texts to texts")
    return dict(value)
