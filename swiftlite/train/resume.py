"""Going on from a checkpoint: which one, and whether it fits."""

import json
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint.config import read_json
from swiftlite.checkpoint.tensors import iter_file
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.train.output import ARGS_FILE, LOG_FILE, PART, STATE_FILE
from swiftlite.train.scale.ranks import say, world_size
from swiftlite.train.settings import Schedule
from swiftlite.train.watching.samples import SAMPLES

# what a checkpoint fixes
LORA_FIELDS = (
    'new_special_tokens',
    *('lora_rank', 'lora_target_modules', 'target_regex', 'modules_to_save', 'lora_alpha', 'use_rslora', 'use_dora'),
    *('init_lora_weights', 'lora_lr_ratio', 'quantization_bit', 'bnb_4bit_quant_type', 'bnb_4bit_use_double_quant'),
)
FULL_FIELDS = ('new_special_tokens', 'freeze_parameters', 'freeze_parameters_ratio', 'trainable_parameters')
OPTIMIZER = ('learning_rate', 'weight_decay', 'adam_beta1', 'adam_beta2', 'adam_epsilon')  # part of its state
# what decides which rows come next
DATA_FIELDS = (
    *('dataset', 'val_dataset', 'dataset_test_ratio', 'dataset_seed', 'interleave_prob', 'stopping_strategy'),
    *('max_length', 'truncation_strategy', 'packing', 'packing_length', 'group_by_length', 'streaming'),
    *('shuffle_buffer_size', 'loss_scale'),
)


HELD_OUT_FIELDS = (  # what a held-out figure depends on
    *('dataset', 'val_dataset', 'dataset_test_ratio', 'dataset_seed'),
    *('max_length', 'truncation_strategy', 'loss_scale'),
)
BEST_FIELDS = ('metric_for_best_model', 'greater_is_better')
NEWEST = ('last', 'true', 'auto')
WEIGHTS = ('adapter_model.safetensors', 'model*.safetensors')


@dataclass(frozen=True)
class Resume:
    """A checkpoint to go on from; `same_run`: in the folder of its run, as if that had never ended."""

    checkpoint: Path
    same_run: bool

    @property
    def step(self) -> int:
        return int(read_json(self.checkpoint / STATE_FILE).get('global_step', 0))


def check_resume(args: SftArgs, name: str, identity: str) -> Resume | None:
    """The checkpoint to go on from; refused if it belongs to another model or another kind of training.

    Args:
        name: of the model, as in the names of run folders.
        identity: fingerprint of the base model.
    """
    given = args.resume_from_checkpoint
    if not given or given.lower() in ('false', 'none'):
        return None
    if given.lower() in NEWEST:
        path = newest(args, name)
        if path is None:
            if given.lower() == 'auto':
                return None
            raise UsageError(f"--resume_from_checkpoint {given} finds no whole checkpoint in '{args.output_dir}'")
        say(f'going on from {path}')
    else:
        path = Path(given).expanduser()
        if not (path / STATE_FILE).is_file():  # the folder of a run stands for its last checkpoint
            path = last_whole(path.glob(f'checkpoint-*/{STATE_FILE}'), args) or path
    if not (path / STATE_FILE).is_file():
        raise UsageError(f"--resume_from_checkpoint '{given}' is no checkpoint folder of swiftlite sft")
    saved = read_json(path / ARGS_FILE) if (path / ARGS_FILE).is_file() else {}
    if saved.get('base_fingerprint', identity) != identity:
        raise UsageError(f"--resume_from_checkpoint '{given}' was trained on another base model")
    for field in ('sft_type', *(LORA_FIELDS if args.sft_type == 'lora' else FULL_FIELDS)):
        if saved.get(field, getattr(args, field)) != getattr(args, field):
            shown = ' '.join(saved[field]) if isinstance(saved[field], list) else saved[field]
            raise UsageError(f"--resume_from_checkpoint '{given}' was trained with --{field} {shown}")
    check_readable(path, args)
    if not args.resume_only_model:
        check_shares(path, saved.get('deepspeed'), args)
    here = Path(args.output_dir).expanduser().resolve() in (path.resolve(), path.resolve().parent)
    return Resume(path, (given.lower() in NEWEST or here) and not args.resume_only_model)


def check_shares(checkpoint: Path, before: str | None, args: SftArgs) -> None:
    """Raise UsageError where the optimizer's state is in shares of DeepSpeed that do not fit, or is not."""
    given, weights = args.resume_from_checkpoint, '; --resume_only_model true takes the weights and starts anew'
    if args.deepspeed != before:
        how = f'with --deepspeed {before}' if before else 'without --deepspeed'
        raise UsageError(f"--resume_from_checkpoint '{given}' was trained {how}: go on so{weights}")
    states = {path.name for path in checkpoint.glob('global_step*/*zero_pp_rank_*_optim_states.pt')}
    if states and len(states) != world_size():
        raise UsageError(
            f"--resume_from_checkpoint '{given}' holds DeepSpeed's states of {len(states)} processes: set "
            f'NPROC_PER_NODE={len(states)}{weights}'
        )


def newest(args: SftArgs, name: str) -> Path | None:
    """The whole checkpoint in --output_dir that was written last."""
    output = Path(args.output_dir).expanduser()
    pattern = f'{name}/v*/checkpoint-*' if args.add_output_dir_suffix else 'checkpoint-*'
    return last_whole(output.glob(f'{pattern}/{STATE_FILE}'), args)


def last_whole(files: Iterable[Path], args: SftArgs) -> Path | None:
    """Of the checkpoints with these states, the last one written that training can go on from."""
    found = [file.parent for file in files if not file.parent.name.endswith(PART)]
    for path in sorted(found, key=lambda path: (path / STATE_FILE).stat().st_mtime, reverse=True):
        try:
            check_readable(path, args)
            return path
        except SwiftliteError as error:
            say(f'note: left out: {error}')
    return None


def check_schedule(
    args: SftArgs, resume: Resume | None, schedule: Schedule, record: dict[str, Any], measured: bool
) -> bool:
    """Says which rows are others than the checkpoint's; True where its best checkpoint is no measure any more.

    Args:
        record: of the run, as sft_args.json holds it.
        measured: on held-out rows.

    Raises:
        UsageError: nothing is left to do, a step was made of another number of rows, or what the optimizer goes on
            with is given anew.
    """
    if resume is None or args.resume_only_model:
        return False
    given = args.resume_from_checkpoint
    if resume.step >= schedule.steps:
        raise UsageError(
            f"--resume_from_checkpoint '{given}' has done {resume.step} of {schedule.steps} steps, nothing is left to "
            'do: give more --num_train_epochs or --max_steps'
        )
    saved = read_json(resume.checkpoint / ARGS_FILE) if (resume.checkpoint / ARGS_FILE).is_file() else {}
    rows, before = schedule.rows, saved.get('rows_a_step', schedule.rows)
    if rows != before:
        each, rest = divmod(before, schedule.batch_size * world_size())
        hint = f': give --gradient_accumulation_steps {each}' if each and not rest else ''
        raise UsageError(f"--resume_from_checkpoint '{given}' was trained with {before} rows a step, not {rows}{hint}")
    for name in OPTIMIZER:
        if saved.get(name, record[name]) != record[name]:
            raise UsageError(
                f"--resume_from_checkpoint '{given}' was trained with --{name} {saved[name]:g}, which its optimizer "
                f'goes on with, not {record[name]:g}: --resume_only_model true takes the weights and starts anew'
            )
    other = [name for name in DATA_FIELDS if saved.get(name, record[name]) != record[name]]
    judged = [name for name in BEST_FIELDS if measured and saved.get(name, record[name]) != record[name]]
    anew = 'dataset' in other or (measured and bool(judged or set(other) & set(HELD_OUT_FIELDS)))
    if other or judged:
        flags = ', '.join(f'--{name}' for name in (*other, *judged))
        next_rows = '; the rows that come next are not those it left' if other else ''
        best = '; which checkpoint is best is found anew' if anew and measured else ''
        say(f'note: not as in the checkpoint: {flags}{next_rows}{best}')
    return anew


def go_back(folder: Path, step: int) -> None:
    """Leave a run's folder as it was at a step: what came later is written again.

    Later checkpoints are those that could not be gone on from, or would be older than what comes.
    """
    for name in (LOG_FILE, SAMPLES):
        trim_log(folder / name, step)
    for path in sorted(folder.glob('checkpoint-*')):
        number = path.name.removeprefix('checkpoint-')
        if number.endswith(PART) or (number.isdigit() and int(number) > step):
            say(f'note: {path} is removed: it is not whole, or of a later step')
            shutil.rmtree(path, ignore_errors=True)


def trim_log(file: Path, step: int) -> None:
    """Take the lines of later steps, and of the end, out of a .jsonl of a run: they will be written again."""
    if not file.is_file():
        return
    kept = []
    for line in file.read_text(encoding='utf-8').splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off when the run ended
            continue
        at = str(entry.get('global_step/max_steps') or entry.get('step', ''))
        if at and int(at.split('/')[0]) <= step:
            kept.append(line + '\n')
    part = file.with_name(f'{file.name}{PART}')
    part.write_text(''.join(kept), encoding='utf-8')
    part.replace(file)  # a crash meanwhile loses no line


def check_readable(checkpoint: Path, args: SftArgs) -> None:
    """Raise SwiftliteError if a file that training goes on from is missing or cut off; reads no whole file."""
    if not any(any(checkpoint.glob(name)) for name in WEIGHTS):
        raise SwiftliteError(f'{checkpoint} has no weights: training goes on from a whole checkpoint only')
    shared = (checkpoint / 'latest').is_file()  # by DeepSpeed
    states = ('latest', 'scheduler.pt') if shared else ('optimizer.pt', 'scheduler.pt')
    for name in () if args.resume_only_model else states:
        if not (checkpoint / name).is_file():
            raise SwiftliteError(f'{checkpoint} has no {name}: training goes on from a whole checkpoint only')
    for file in sorted(checkpoint.iterdir()):
        if file.suffix == '.safetensors':
            next(iter_file(file), None)
        elif file.suffix in ('.pt', '.pth') and not zipfile.is_zipfile(file):
            raise SwiftliteError(f'{file} is damaged: go on from an earlier checkpoint')
