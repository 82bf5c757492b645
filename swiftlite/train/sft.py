"""`swiftlite sft`: from conversations to a LoRA or full checkpoint."""

import json
import os
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint import fingerprint, load_tokenizer, native_checkpoint, raw_config
from swiftlite.checkpoint.config import read_config, read_json
from swiftlite.checkpoint.tensors import iter_file
from swiftlite.data.rows import Drops, Row
from swiftlite.data.split import read_split
from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.hub import local_path
from swiftlite.registry.resolve import ModelSource, complete, get_family
from swiftlite.template import Template, get_template
from swiftlite.template.writer import chat_template
from swiftlite.train import plots
from swiftlite.train.callbacks import Events, RunLog, SavedArgs, progress_bar
from swiftlite.train.collate import Collator
from swiftlite.train.encode import EncodedRows, EncodeReport, Limits, encode_rows
from swiftlite.train.forked import usable_workers
from swiftlite.train.model import (
    LARGE,
    add_lora,
    load_model,
    parameter_counts,
    pass_overhead,
    recompute_activations,
    resolve_dtype,
    target_modules,
)
from swiftlite.train.output import (
    ARGS_FILE,
    LOG_FILE,
    STATE_FILE,
    args_record,
    check_output,
    how_to_go_on,
    next_commands,
    run_folder,
    write_args,
)
from swiftlite.train.settings import make_schedule, training_arguments
from swiftlite.train.trainer import SftTrainer

LORA_FIELDS = ('lora_rank', 'lora_target_modules', 'lora_alpha', 'use_rslora')  # what a checkpoint's adapter fixes
MANY = 10_000  # rows from which encoding shows a bar and takes several processes
SAVED = {'bfloat16': torch.bfloat16, 'float16': torch.float16, 'float32': torch.float32}


def run(args: SftArgs) -> dict[str, Any]:
    """Fine-tune as `args` says (swiftlite.args.sft); returns the summary that ends logging.jsonl.

    Raises:
        UsageError, SwiftliteError: one sentence for everything the user can put right.
    """
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(args.seed)

    source = args.source()
    base = local_path(source.model_id_or_path, source.revision)
    source = complete(source, base)
    tokenizer = load_tokenizer(base)
    template = get_template(args.template_type or source.template, tokenizer, **args.template_options())
    if (own := chat_template(template)) is not None:
        tokenizer.chat_template = own  # saved beside full weights
    check_output(args.output_dir, args.add_output_dir_suffix)
    targets = lora_targets(args, base)
    identity = fingerprint(base)
    resume = check_resume(args, identity)

    train_rows, eval_rows, drops = read_split(args)
    train_data, report = encode('training data', train_rows, template, args, drops[0])
    held_out = encode('held-out data', eval_rows, template, args, drops[1])[0] if eval_rows else None
    eval_data = held_out if held_out is not None and len(held_out) else None
    if not len(train_data):
        raise SwiftliteError(f'no rows are left to train on: {"; ".join(report.drops.lines()) or "the data is empty"}')
    schedule = make_schedule(args, len(train_data), int(train_data.lengths.max()))
    if resume and (done := read_json(Path(resume) / STATE_FILE).get('global_step', 0)) >= schedule.steps:
        raise UsageError(
            f"--resume_from_checkpoint '{resume}' has done {done} of {schedule.steps} steps, nothing is left to do: "
            'give more --num_train_epochs or --max_steps'
        )

    dtype = resolve_dtype(args.dtype)
    record = args_record(args, resolved(args, source, template, dtype, identity))
    model, save_dtype = make_model(args, base, dtype, targets)

    folder = shared_folder(args, source)
    if is_main():
        write_args(folder, record)
    trainer = SftTrainer(
        model=model,
        args=training_arguments(args, folder, schedule, dtype, eval_data is not None),
        data_collator=Collator(pad_id(tokenizer), pass_overhead(model), schedule.budget),
        train_dataset=train_data,
        eval_dataset=eval_data,
        tokenizer=tokenizer,
        save_dtype=save_dtype,
        group_by_length=args.group_by_length,
    )
    log = add_callbacks(trainer, args, folder, record)
    say(f'{schedule.steps} steps of {schedule.batch_size} x {schedule.accumulation} rows, output in {folder}')
    try:
        trainer.train(resume_from_checkpoint=resume)
    except torch.OutOfMemoryError as error:
        raise SwiftliteError(
            f'out of GPU memory at step {trainer.state.global_step}: lower --batch_size (now {schedule.batch_size}) '
            f'or --max_length (now {args.max_length}), or add --gradient_checkpointing true'
        ) from error
    except KeyboardInterrupt:
        log.close()
        say(how_to_go_on(folder, trainer.state.global_step))
        raise
    except (OSError, SafetensorError) as error:
        raise SwiftliteError(f'a checkpoint in {folder} cannot be written: {error}') from error
    finally:
        log.close()
    summary = finish(trainer, folder, lora=save_dtype is None)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # nobody leaves while another still talks
        trainer.accelerator.free_memory()
        torch.distributed.destroy_process_group()
    return summary


def encode(
    title: str, rows: list[Row], template: Template, args: SftArgs, drops: Drops
) -> tuple[EncodedRows, EncodeReport]:
    """Encode, then print what was kept, dropped and truncated; a bar shows where it takes long."""
    limits = Limits(args.max_length, args.truncation_strategy)
    workers = usable_workers(16) if len(rows) > MANY else 1
    if len(rows) > MANY and is_main():
        with progress_bar() as bar:
            tick = partial(bar.advance, bar.add_task(f'encoding {title}', total=len(rows)))
            data, report = encode_rows(rows, template, limits, drops, tick, workers)
    else:
        data, report = encode_rows(rows, template, limits, drops, workers=workers)
    for line in report.lines(title):
        say(line)
    return data, report


def resolved(
    args: SftArgs, source: ModelSource, template: Template, dtype: torch.dtype, identity: str
) -> dict[str, Any]:
    """What sft_args.json records beyond the given arguments: it must find the base again from any folder."""
    given = args.model_id_or_path
    return {
        'model_type': source.model_type,
        'model_id_or_path': str(Path(given).resolve()) if given and Path(given).is_dir() else given,
        'template_type': template.name,
        'dtype': {'bfloat16': 'bf16', 'float16': 'fp16', 'float32': 'fp32'}[str(dtype).removeprefix('torch.')],
        'base_fingerprint': identity,
        'dataset': [absolute(spec) for spec in args.dataset],
        'val_dataset': [absolute(spec) for spec in args.val_dataset or []],
    }


def absolute(spec: str) -> str:
    """A data set with its file as an absolute path, so that a checkpoint finds it from any folder."""
    source, mark, number = spec.rpartition('#')
    if mark and Path(source).is_file() and not Path(spec).is_file():
        return f'{Path(source).resolve()}#{number}'
    return str(Path(spec).resolve()) if Path(spec).is_file() else spec


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
    for name in ('sft_type', *(LORA_FIELDS if args.sft_type == 'lora' else ())):
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


def lora_targets(args: SftArgs, base: str) -> list[str]:
    """The linear layers that get an adapter, none where all weights are trained."""
    family = get_family((raw_config(base).get('architectures') or ['none'])[0])
    return target_modules(family, args.lora_target_modules) if args.sft_type == 'lora' else []


def make_model(args: SftArgs, base: str, dtype: torch.dtype, targets: list[str]) -> tuple[Any, torch.dtype | None]:
    """(model, dtype its weights are saved in; None for an adapter)."""
    full = args.sft_type == 'full'
    if raw_config(base).get('quantization_config'):
        raise SwiftliteError(f'{base} is quantized: train the unquantized model')
    model = load_model(native_checkpoint(base), torch.float32 if full else dtype)
    if full:
        save_dtype = SAVED.get(read_config(base)['dtype'] or 'float32', torch.float32)
    else:
        model = add_lora(model, args, targets, base)
        save_dtype = None
    trained, total = parameter_counts(model)
    what = 'all of them trained' if full else f'{trained:,} trained (LoRA, rank {args.lora_rank}, {" ".join(targets)})'
    say(f'model: {total:,} parameters, {what}; {str(dtype).removeprefix("torch.")}')
    if not full and any(spec.startswith('self-cognition') for spec in args.dataset) and 'up_proj' not in targets:
        say('note: an identity is learnt better with --lora_target_modules ALL')
    wanted = args.gradient_checkpointing
    if wanted or (wanted is None and torch.cuda.is_available() and total >= LARGE):
        recompute_activations(model)
    return model, save_dtype


def add_callbacks(trainer: SftTrainer, args: SftArgs, folder: Path, record: dict[str, Any]) -> RunLog:
    log = RunLog(folder, trainer)
    trainer.pop_callback(transformers.PrinterCallback)
    for callback in (log, SavedArgs(record)):
        trainer.add_callback(callback)
    if 'tensorboard' in (args.report_to or []) and is_main():
        try:
            trainer.add_callback(Events(folder))
        except ImportError:
            say("note: no TensorBoard files are written; pip install 'swiftlite[plots]' for them")
    return log


def finish(trainer: SftTrainer, folder: Path, lora: bool) -> dict[str, Any]:
    """Write the summary and the pictures, print the next commands."""
    state, tokens = trainer.state, trainer.all_tokens_seen()
    last = folder / f'checkpoint-{state.global_step}'
    best = state.best_model_checkpoint
    best = best if best and Path(best).is_dir() else None
    metrics: dict[str, Any] = next((entry for entry in reversed(state.log_history) if 'train_runtime' in entry), {})
    summary = {
        'train_loss': metrics.get('train_loss'),
        'train_runtime': metrics.get('train_runtime'),
        'tokens': tokens,
        'global_step': state.global_step,
        'best_metric': state.best_metric,
        'best_model_checkpoint': best,
        'last_model_checkpoint': str(last),
    }
    if not is_main():
        return summary
    with (folder / LOG_FILE).open('a', encoding='utf-8') as stream:
        stream.write(json.dumps(summary) + '\n')
    try:
        plots.draw(folder / LOG_FILE, folder / 'images')
        say(f'loss curve: {folder / "images" / "train_loss.png"}')
    except ImportError:
        say("note: no loss curve is drawn; pip install 'swiftlite[plots]' for it")
    runtime = summary['train_runtime'] or 0
    say(f'trained {tokens:,} tokens in {runtime:.1f} s, loss {summary["train_loss"]:.4f}')
    say(f'last checkpoint: {last}')
    if best and best != str(last):
        say(f'best checkpoint: {best} (eval loss {state.best_metric:.4f})')
    say('next:')
    for command in next_commands(best or str(last), lora):
        say(f'  {command}')
    return summary


def shared_folder(args: SftArgs, source: ModelSource) -> Path:
    """The run's folder, the same in all processes."""
    folder = [run_folder(args.output_dir, source.name, args.add_output_dir_suffix)] if is_main() else [None]
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        PartialState(cpu=not torch.cuda.is_available())
        broadcast_object_list(folder)
    assert folder[0] is not None
    return folder[0]


def pad_id(tokenizer: Any) -> int:
    return 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def is_main() -> bool:
    return int(os.environ.get('RANK', 0)) == 0


def say(text: str) -> None:
    if is_main():
        print(text, flush=True)
