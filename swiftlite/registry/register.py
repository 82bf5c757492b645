"""Rows of one's own beside those of the tables: models, templates and data sets, as data, checked field by field."""

import os
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any

from swiftlite.errors import UsageError, nearest
from swiftlite.registry.datasets import COLUMNS, DATASETS, ROLES, DatasetInfo
from swiftlite.registry.families import FAMILIES
from swiftlite.registry.models import BASE, MODELS, ModelInfo
from swiftlite.registry.templates import TEMPLATES, TemplateSpec

SECTIONS = ('models', 'templates', 'datasets')
EXAMPLE = """\
models:
  - {model_type: my-7b-chat, architecture: LlamaForCausalLM, template: my-chat, path: /models/my-7b-chat}
templates:
  - {name: my-chat, extends: chatml, default_system: Be brief.}
datasets:
  - {name: my-rows, path: rows.jsonl, columns: {ask: query, reply: response}}
"""
TOOL_FORMATS = ('hermes', 'llama3', 'mistral', 'mistral-nemo')


def register(content: Any, where: str, folder: Path) -> None:
    """Add the rows of ``{'models': [...], 'templates': [...], 'datasets': [...]}`` to the tables.

    A row has the fields of ModelInfo, TemplateSpec (whose `extends` names the template it starts from) or DatasetInfo;
    paths are relative to `folder`. Rows that are there already, unchanged, are left alone.

    Raises:
        UsageError: one sentence that names the place, for a field that is unknown, missing or of another type, a name
            that is taken, and a row that points to nothing.
    """
    if not isinstance(content, Mapping) or not content:
        raise UsageError(f'{where} must hold lists of {", ".join(SECTIONS)}')
    for section in content:
        if section not in SECTIONS:
            raise UsageError(
                f'{where} has a section {section!r}; valid are {", ".join(SECTIONS)}{nearest(str(section), SECTIONS)}'
            )
    makers: dict[str, tuple[Callable[[dict[str, Any], str, Path], Any], dict[str, Any]]] = {
        'templates': (_template, TEMPLATES),
        'models': (_model, MODELS),
        'datasets': (_dataset, DATASETS),
    }
    for section, (make, rows) in makers.items():
        given = content.get(section) or []
        if not isinstance(given, list):
            raise UsageError(f"'{section}' of {where} must be a list of rows")
        for number, row in enumerate(given, 1):
            place = f"{where}, '{section}' {number}"
            if not isinstance(row, Mapping):
                raise UsageError(f"{place} must hold a row of 'field: value', not {row!r:.40}")
            made = make(dict(row), place, folder)
            add(rows, made.model_type if isinstance(made, ModelInfo) else made.name, made, place)


def add(rows: dict[str, Any], name: str, made: Any, place: str) -> None:
    """Put a row into a table. UsageError where another one has its name."""
    if rows.get(name, made) != made:
        raise UsageError(f'{place}: {name!r} is taken: give it another name')
    rows[name] = made


def _model(row: dict[str, Any], place: str, folder: Path) -> ModelInfo:
    values = _checked(ModelInfo, row, place, {'template': None})
    if values['architecture'] not in FAMILIES:
        raise UsageError(
            f'{place}: the architecture {values["architecture"]!r} is not supported: valid are {", ".join(FAMILIES)}'
            f'{nearest(values["architecture"], FAMILIES)}'
        )
    template = values.get('template')
    if template is not None and template not in TEMPLATES:
        raise UsageError(f'{place}: there is no template {template!r}{nearest(template, TEMPLATES)}')
    if not any(values.get(name) for name in ('path', 'ms_id', 'hf_id')):
        raise UsageError(f'{place} says not where the weights are: give a path, ms_id or hf_id')
    values['path'] = _path(values.get('path'), folder)
    return ModelInfo(**{**values, 'base': values.get('base', template == BASE)})


def _template(row: dict[str, Any], place: str, folder: Path) -> TemplateSpec:
    name = row.pop('extends', None)
    if name is not None and name not in TEMPLATES:
        raise UsageError(f'{place} extends {name!r}, which is no template{nearest(str(name), TEMPLATES)}')
    start = TEMPLATES.get(name) if name else None
    values = _checked(TemplateSpec, row, place, {f.name: None for f in fields(TemplateSpec)} if start else {})
    tools = values.get('tools')
    if tools is not None and tools not in TOOL_FORMATS:
        raise UsageError(f"{place}: valid for 'tools' are {', '.join(TOOL_FORMATS)}, not {tools!r}")
    if 'name' not in values:
        raise UsageError(f"{place} has no 'name'")
    return replace(start, **values) if start else TemplateSpec(**values)


def _dataset(row: dict[str, Any], place: str, folder: Path) -> DatasetInfo:
    values = _checked(DatasetInfo, row, place, {})
    if not any(values.get(name) for name in ('path', 'ms_id', 'hf_id')):
        raise UsageError(f'{place} says not where the rows are: give a path, ms_id or hf_id')
    for name, valid in (('columns', COLUMNS), ('roles', ROLES)):
        for new in values.get(name, {}).values():
            if new not in valid:
                raise UsageError(
                    f"{place}: '{name}' maps to {new!r}; valid are {', '.join(valid)}{nearest(str(new), valid)}"
                )
    values['path'] = _path(values.get('path'), folder)
    return DatasetInfo(**values)


def _path(given: str | None, folder: Path) -> str | None:
    return None if given is None else os.path.join(folder, os.path.expanduser(given))


def _checked(cls: Any, row: dict[str, Any], place: str, optional: Mapping[str, Any]) -> dict[str, Any]:
    """The row's values in the types of the fields of `cls`."""
    hints = typing.get_type_hints(cls)
    values = {}
    for key, value in row.items():
        if key not in hints:
            raise UsageError(
                f'{place} has no field {key!r}{nearest(str(key), hints) or ": valid are " + ", ".join(hints)}'
            )
        values[key] = _value(value, hints[key], f"{place}: '{key}'")
    for f in fields(cls):
        needed = f.default is MISSING and f.default_factory is MISSING and f.name not in optional
        if needed and f.name not in values:
            raise UsageError(f"{place} has no '{f.name}'")
    return {**{name: value for name, value in optional.items() if name == 'template'}, **values}


def _value(value: Any, hint: Any, place: str) -> Any:
    """A value from YAML or JSON as the type of a field: texts, true and false, pairs and lists of texts, mappings."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, UnionType):
        parts = typing.get_args(hint)
        if value is None and type(None) in parts:
            return None
        return _value(value, next(part for part in parts if part is not type(None)), place)
    if origin is typing.Literal:
        valid = typing.get_args(hint)
        if value not in valid:
            raise UsageError(f'{place} must be {" or ".join(map(str, valid))}, not {value!r:.40}')
        return value
    if origin is tuple:
        size = None if typing.get_args(hint)[-1] is Ellipsis else len(typing.get_args(hint))
        texts = isinstance(value, list) and all(isinstance(text, str) for text in value)
        if not texts or (size is not None and len(value) != size):
            raise UsageError(f'{place} must be a list of {size or "any number of"} texts, not {value!r:.40}')
        return tuple(value)
    if origin is not None:  # a mapping of texts
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for pair in value.items() for text in pair):
            raise UsageError(f'{place} must map texts to texts, not {value!r:.40}')
        return dict(value)
    if not isinstance(value, hint):
        what = {str: 'text', bool: 'true or false'}[hint]
        raise UsageError(f'{place} must be {what}, not {value!r:.40}')
    return value
