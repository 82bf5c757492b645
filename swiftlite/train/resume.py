"""Going on from a checkpoint: which one, and whether it fits."""

import zipfile
from pathlib import Path

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint.config import read_json
from swiftlite.checkpoint.tensors import iter_file
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.train.output import ARGS_FILE, STATE_FILE

# what a checkpoint fixes
LORA_FIELDS = (
    *('lora_rank', 'lora_target_modules', 'target_regex', 'modules_to_save', 'lora_alpha', 'use_rslora', 'use_dora'),
    *('init_lora_weights', 'lora_lr_ratio', 'quantization_bit', 'bnb_4bit_quant_type', 'bnb_4bit_use_double_quant'),
)
FULL_FIELDS = ('freeze_parameters', 'freeze_parameters_ratio', 'trainable_parameters')


def check_resume(args: SftArgs, identity: str) -> str | None:
    """The checkpoint to continue from; refused if it belongs to another model or another kind of training."""
    folder = args.resume_from_checkpoint
    if not folder:
        return None
    path = Path(folder)
    if not (path / STATE_FILE).is_file():
        raise UsageError(f"--resume_from_checkpoint '{folder}' is no checkpoint folder of swiftlite sft")
    saved = read_json(path / ARGS_FILE) if (path / ARGS_FILE).is_file() else {}
    if saved.get('base_fingerprint', identity) != identity:
        raise UsageError(f"--resume_from_checkpoint '{folder}' was trained on another base model")
    for name in ('sft_type', *(LORA_FIELDS if args.sft_type == 'lora' else FULL_FIELDS)):
        if saved.get(name, getattr(args, name)) != getattr(args, name):
            shown = ' '.join(saved[name]) if isinstance(saved[name], list) else saved[name]
            raise UsageError(f"--resume_from_checkpoint '{folder}' was trained with --{name} {shown}")
    check_readable(path)
    return str(path)


def check_readable(checkpoint: Path) -> None:
    """Raise SwiftliteError if a file that training goes on from is missing or cut off; reads no whole file."""
    for name in ('optimizer.pt', 'scheduler.pt'):
        if not (checkpoint / name).is_file():
            raise SwiftliteError(f'{checkpoint} has no {name}: training goes on from a whole checkpoint only')
    for file in sorted(checkpoint.iterdir()):
        if file.suffix == '.safetensors':
            next(iter_file(file), None)
        elif file.suffix in ('.pt', '.pth') and not zipfile.is_zipfile(file):
            raise SwiftliteError(f'{file} is damaged: go on from an earlier checkpoint')
