"""What a command recovers from the ``sft_args.json`` beside the weights."""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from swiftlite.args.fields import Args
from swiftlite.errors import UsageError
from swiftlite.registry.resolve import read_checkpoint_args

# the model itself (type, path, revision, adapter) is recovered by `registry.resolve.resolve_model`
PROMPT_FIELDS = ('custom_register_path', 'template_type', 'chat_template', 'dtype', 'system', 'enable_thinking')
DATA_FIELDS = (
    *('dataset', 'val_dataset', 'dataset_test_ratio', 'dataset_seed', 'seed', 'model_name', 'model_author'),
    *('custom_dataset_info', 'custom_register_path'),
)


def recover(cls: type[Args], typed: Mapping[str, Any]) -> dict[str, Any]:
    """`typed` with the fields filled in that the user left out and the checkpoint knows.

    The prompt's fields always, unless ``--load_args_from_ckpt_dir false``; the data's with ``--load_dataset_config``,
    which raises UsageError where the checkpoint names none.
    """
    ckpt_dir = typed.get('ckpt_dir')
    prompt = PROMPT_FIELDS if typed.get('load_args_from_ckpt_dir', True) else ()
    data = DATA_FIELDS if typed.get('load_dataset_config') else ()
    names = prompt + data
    if ckpt_dir is None or not names:
        return dict(typed)
    known = {f.name for f in fields(cls)}
    saved = read_checkpoint_args(ckpt_dir)
    found = {name: saved[name] for name in names if name in known and saved.get(name) is not None}
    if typed.get('chat_template') is not None or typed.get('template_type') is not None:
        found = {name: value for name, value in found.items() if name not in ('chat_template', 'template_type')}
    given = typed.keys() & {'dataset', 'val_dataset'}
    named = given or found.get('dataset') or found.get('val_dataset')
    if data and not named and os.path.isdir(ckpt_dir):  # what is no folder is refused with the nearest later
        raise UsageError(f"--load_dataset_config: no sft_args.json in '{ckpt_dir}' names the data it was trained on")
    if given:
        found = {name: value for name, value in found.items() if name not in ('dataset', 'val_dataset')}
    return {**found, **typed}
