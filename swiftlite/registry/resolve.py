"""From what a user typed (a type, a path, a hub id, a checkpoint folder) to what it means."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from swiftlite.errors import SwiftliteError, UsageError, nearest
from swiftlite.registry.datasets import DATASETS, DatasetInfo
from swiftlite.registry.families import FAMILIES, Family
from swiftlite.registry.models import MODELS, QUANTIZED, ModelInfo
from swiftlite.registry.templates import JINJA, TEMPLATES, TemplateSpec

T = TypeVar('T')
# what is recovered from them, by kind
SAVED_TEXTS = (
    'model_type',
    'model_id_or_path',
    'model',
    'model_revision',
    'template_type',
    'template',
    'dtype',
    'system',
)
SAVED_LISTS = ('dataset', 'val_dataset', 'model_name', 'model_author')
ARGS_FILES = ('sft_args.json', 'args.json')  # the second is what ms-swift 3.x and 4.x write


@dataclass(frozen=True)
class ModelSource:
    """A model as named by the user. `model_id_or_path` is what ``hub.local_path`` takes."""

    model_type: str | None  # None: not known from the name; `complete` finds it in the config
    model_id_or_path: str
    revision: str | None = None
    template: str | None = None  # None: not known from the name; `template.detect` finds it in the tokenizer
    adapter: str | None = None  # folder of a PEFT adapter, when ckpt_dir holds one
    ckpt_dir: str | None = None
    ckpt_args: dict[str, Any] = field(default_factory=dict)  # contents of sft_args.json, {} without one

    @property
    def name(self) -> str:
        """The model type, or the last part of the path: what outputs and the server call the model."""
        return self.model_type or Path(self.model_id_or_path).name or self.model_id_or_path


def get_model(name: str) -> ModelInfo:
    """The row of a model type; ``-`` and ``_`` are the same. UsageError with the nearest name otherwise."""
    _refuse_quantized(name)
    return _lookup(MODELS, name, 'model type', "'swiftlite models' lists them")


def find_model(name: str) -> ModelInfo | None:
    """The row whose model type or hub id this is; None for a folder and for a name that is not in the table."""
    if os.path.isdir(name) and name not in MODELS:
        return None
    for info in MODELS.values():
        if _key(name) in {_key(x) for x in (info.model_type, info.ms_id, info.hf_id) if x}:
            return info
    return None


def get_template_spec(name: str) -> TemplateSpec:
    return _lookup(TEMPLATES, name, 'template', f'valid are {", ".join([*TEMPLATES, JINJA])}')


def template_name(name: str | None) -> str | None:
    """The template that ``--template_type`` names; None for AUTO: the model's own."""
    if name is None or name.lower() == 'auto':
        return None
    return JINJA if name.lower() == JINJA else get_template_spec(name).name


def get_dataset(name: str) -> DatasetInfo:
    return _lookup(DATASETS, name, 'data set', f'valid are {", ".join(DATASETS)} and paths of jsonl, json or csv files')


def get_family(architecture: str) -> Family:
    if architecture not in FAMILIES:
        raise SwiftliteError(
            f"the architecture '{architecture}' is not supported: valid are {', '.join(FAMILIES)}"
            f'{nearest(architecture, FAMILIES)}'
        )
    return FAMILIES[architecture]


def resolve_model(
    model_type: str | None = None,
    model_id_or_path: str | None = None,
    ckpt_dir: str | None = None,
    revision: str | None = None,
) -> ModelSource:
    """Find out which model is meant, without reading weights and without the network.

    Typed values win over those recovered from the ``sft_args.json`` in `ckpt_dir`. A `ckpt_dir` with an
    ``adapter_config.json`` is an adapter over the base model; any other holds the weights itself.
    Raises UsageError where nothing or something unknown is named, SwiftliteError for a broken checkpoint.
    """
    model_id_or_path = model_id_or_path or None
    if ckpt_dir is not None:
        return _from_checkpoint(ckpt_dir, model_type, model_id_or_path, revision)
    if not model_type and not model_id_or_path:
        raise UsageError("no model is given: use --model_type (e.g. 'tiny-chat'), --model_id_or_path or --ckpt_dir")
    info = get_model(model_type) if model_type is not None else None
    if model_id_or_path is None:
        assert info is not None
        return ModelSource(info.model_type, info.model_type, revision, info.template)
    if info is not None:
        _check_architecture(info, model_id_or_path)
    info = info or find_model(model_id_or_path)
    if info is None and not os.path.isdir(model_id_or_path):
        _refuse_quantized(model_id_or_path)
    if info is None and os.path.isdir(model_id_or_path):
        return complete(ModelSource(None, model_id_or_path, revision), model_id_or_path)
    if info is None and not _looks_like_id(model_id_or_path):
        parent = Path(model_id_or_path).parent
        beside = [str(child) for child in parent.iterdir() if child.is_dir()] if os.path.isdir(parent) else []
        hint = nearest(model_id_or_path.removeprefix('./'), [*MODELS, *beside])
        raise UsageError(f"'{model_id_or_path}' is no folder, model type or hub id{hint}")
    return ModelSource(info.model_type if info else None, model_id_or_path, revision, info.template if info else None)


def _check_architecture(info: ModelInfo, folder: str) -> None:
    """UsageError where a folder holds another network than its --model_type says; one in native layout is none."""
    config_file = Path(folder, 'config.json')
    found = (_read_json(config_file).get('architectures') or [None])[0] if config_file.is_file() else None
    if found in FAMILIES and FAMILIES[found].native != FAMILIES[info.architecture].native:
        raise UsageError(
            f"--model_type {info.model_type} is {info.architecture}, but the weights in '{folder}' are {found}: "
            'leave --model_type out, or give the folder that belongs to it'
        )


def complete(source: ModelSource, path: str) -> ModelSource:
    """Fill in the type and template of a source from the files in `path`, the folder it was fetched to."""
    config_file = Path(path, 'config.json')
    if source.template or not config_file.is_file():
        return source
    info = get_model(source.model_type) if source.model_type else match_type(_read_json(config_file), path)
    if info is None:
        return source
    return replace(source, model_type=info.model_type, template=source.template or info.template)


def match_type(config: Mapping[str, Any], path: str) -> ModelInfo | None:
    """The model type of a downloaded folder: same architecture, and the repository's name occurs in the path.

    ``…/Qwen2.5-7B-Instruct`` and ``models--Qwen--Qwen2.5-7B-Instruct/snapshots/…`` both match; the longest name wins,
    so that ``Qwen2.5-7B-Instruct`` is not taken for the base model ``Qwen2.5-7B``.
    """
    architecture = (config.get('architectures') or [None])[0]
    parts = {_key(part.rsplit('--', 1)[-1]) for part in (*Path(path).parts, str(config.get('_name_or_path', '')))}
    parts |= {_key(part.rsplit('/', 1)[-1]) for part in list(parts)}
    found = [
        info
        for info in MODELS.values()
        if info.architecture == architecture and any(_key(name) in parts for name in _names(info))
    ]
    return max(found, key=lambda info: len(info.model_type), default=None)


def read_checkpoint_args(ckpt_dir: str) -> dict[str, Any]:
    """What ``sft`` wrote beside the weights (``sft_args.json``); ``{}`` where there is no such file.

    None in a list, as ms-swift writes it, counts as not given. SwiftliteError for a value of the wrong kind.
    """
    for name in ARGS_FILES:
        file = Path(ckpt_dir, name)
        if not file.is_file():
            continue
        saved = _read_json(file)
        for key in SAVED_LISTS:
            if isinstance(saved.get(key), str):
                saved[key] = [saved[key]]
            if isinstance(saved.get(key), list):
                saved[key] = [value for value in saved[key] if value is not None] or None
        for keys, kind, what in ((SAVED_TEXTS, str, 'text'), (SAVED_LISTS, list, 'a list')):
            for key in keys:
                if saved.get(key) is not None and not isinstance(saved[key], kind):
                    raise SwiftliteError(f"'{file}' gives {key} as {saved[key]!r}, where {what} is expected")
        return saved
    return {}


def _from_checkpoint(
    ckpt_dir: str, model_type: str | None, model_id_or_path: str | None, revision: str | None
) -> ModelSource:
    folder = Path(ckpt_dir)
    if not os.path.isdir(folder):
        siblings = sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if os.path.isdir(folder.parent) else []
        raise UsageError(f"--ckpt_dir '{ckpt_dir}' is no folder{nearest(folder.name, siblings)}")
    is_adapter = (folder / 'adapter_config.json').is_file()
    if not is_adapter and not (folder / 'config.json').is_file():
        numbers = [int(p.name[11:]) for p in folder.glob('checkpoint-*') if p.is_dir() and p.name[11:].isdigit()]
        needed = 'it needs an adapter_config.json or a config.json'
        hint = f'did you mean its checkpoint-{max(numbers)}?' if numbers else needed
        raise UsageError(f"--ckpt_dir '{ckpt_dir}' holds no checkpoint: {hint}")
    saved = read_checkpoint_args(ckpt_dir)
    if not is_adapter:
        if model_id_or_path is not None:
            raise UsageError(
                f"--ckpt_dir '{ckpt_dir}' holds a whole model: "
                f"--model_id_or_path '{model_id_or_path}' goes with an adapter only"
            )
        info = get_model(model_type) if model_type else None
        source = ModelSource(
            info.model_type if info else saved.get('model_type'),
            ckpt_dir,
            None,
            info.template if info else _saved_template(saved),
            None,
            ckpt_dir,
            saved,
        )
        return complete(source, ckpt_dir)
    if model_type is None and model_id_or_path is None:
        model_type = saved.get('model_type')
        model_id_or_path = saved.get('model_id_or_path') or saved.get('model')
        revision = revision or saved.get('model_revision')
        if model_type is None and model_id_or_path is None:
            model_id_or_path = _read_json(folder / 'adapter_config.json').get('base_model_name_or_path')
        if model_type is None and not model_id_or_path:
            raise UsageError(
                f"the adapter in '{ckpt_dir}' does not say which model it was trained on: "
                'give --model_type or --model_id_or_path'
            )
        if model_type is not None and model_type not in MODELS:
            model_type = None if model_id_or_path else model_type
    base = resolve_model(model_type, model_id_or_path, revision=revision)
    return replace(
        base, template=_saved_template(saved) or base.template, adapter=ckpt_dir, ckpt_dir=ckpt_dir, ckpt_args=saved
    )


def _saved_template(saved: Mapping[str, Any]) -> str | None:
    name = saved.get('template_type') or saved.get('template')
    return None if name in (None, 'AUTO') else name


def _refuse_quantized(name: str) -> None:
    """UsageError for the published quantized form of a model in the table."""
    match = re.fullmatch(rf'(.+?){QUANTIZED}', name, flags=re.IGNORECASE)
    if match and (info := find_model(match.group(1)) or _same_repository(match.group(1))):
        raise UsageError(
            f"'{name}' has quantized weights, and this version runs bf16, fp16 and fp32 weights only: "
            f"use '{info.model_type}'"
        )


def _same_repository(name: str) -> ModelInfo | None:
    last = _key(name.rsplit('/', 1)[-1])
    return next((info for info in MODELS.values() if last in map(_key, _names(info))), None)


def _lookup(table: Mapping[str, T], name: str, what: str, hint: str) -> T:
    for key, row in table.items():
        if _key(key) == _key(name):
            return row
    raise UsageError(f"unknown {what} '{name}'{nearest(name, table) or ': ' + hint}")


def _looks_like_id(name: str) -> bool:
    return re.fullmatch(r'[\w.-]+/[\w.-]+', name) is not None and not name.startswith('.')


def _names(info: ModelInfo) -> list[str]:
    return [info.model_type, *(x.rsplit('/', 1)[-1] for x in (info.ms_id, info.hf_id) if x)]


def _key(name: str) -> str:
    """Names are compared without case, and with ``_``, ``-`` and ``.`` alike (ModelScope's cache writes ``___``)."""
    return name.lower().replace('___', '-').replace('_', '-').replace('.', '-')


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise SwiftliteError(f"'{path}' cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise SwiftliteError(f"'{path}' holds no JSON object")
    return value
