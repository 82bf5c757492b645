"""`swiftlite sft`: from conversations to a LoRA or full checkpoint."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from swiftlite.args.sft import SftArgs
from swiftlite.checkpoint import fingerprint, load_tokenizer
from swiftlite.checkpoint.config import positions, read_config
from swiftlite.errors import SwiftliteError
from swiftlite.hub import local_path
from swiftlite.registry.resolve import ModelSource, complete
from swiftlite.template import Template, get_template
from swiftlite.template.writer import chat_template
from swiftlite.train.model.make import make_model, resolve_dtype
from swiftlite.train.model.quantized import check_quantization
from swiftlite.train.model.targets import lora_targets
from swiftlite.train.model.tokens import add_tokens
from swiftlite.train.output import args_record, check_output, claim, how_to_go_on, write_args, write_training_args
from swiftlite.train.resume import check_resume, check_schedule, go_back
from swiftlite.train.rows.data import beyond, extent, run_data
from swiftlite.train.rows.dump import dump_prompt
from swiftlite.train.rows.stream import EncodedStream
from swiftlite.train.scale.memory import gpu_errors
from swiftlite.train.scale.ranks import is_main, pick_device, say, shared_folder
from swiftlite.train.scale.rehearsal import too_large
from swiftlite.train.settings import make_schedule, sharing
from swiftlite.train.setup import add_callbacks, make_trainer
from swiftlite.train.watching.reports import check_reports
from swiftlite.train.watching.samples import read_prompts
from swiftlite.train.watching.summary import finish


def run(args: SftArgs) -> dict[str, Any]:
    """Fine-tune as `args` says (swiftlite.args.sft); returns the summary that ends logging.jsonl.

    Raises:
        UsageError, SwiftliteError: one sentence for everything the user can put right.
    """
    with ExitStack() as held:
        return train(args, held)


def train(args: SftArgs, held: ExitStack) -> dict[str, Any]:
    """`run`; `held` keeps the folder that is written to."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    pick_device(args)
    torch.manual_seed(args.seed)

    source = args.source()
    base = local_path(source.model_id_or_path, source.revision)
    source = complete(source, base)
    tokenizer = load_tokenizer(base)
    add_tokens(tokenizer, args.new_special_tokens)
    template = get_template(args.template_type or source.template, tokenizer, **args.template_options())
    if (own := chat_template(template)) is not None:
        tokenizer.chat_template = own  # saved beside full weights
    check_reports(args)
    read_prompts(args)  # what is wrong with them is said now
    dtype = resolve_dtype(args.dtype)
    sharing(args, dtype)  # what cannot be shared out is known before anything is read or written
    targets = lora_targets(args, base)
    check_quantization(args)
    identity = fingerprint(base)
    resume = check_resume(args, source.name, identity)
    if resume is None or not resume.same_run:
        check_output(args.output_dir, args.add_output_dir_suffix)

    if args.dump_prompt:
        return {'rows_shown': dump_prompt(args, template, tokenizer)}
    train_data, eval_data = run_data(args, template, base)
    if isinstance(train_data, EncodedStream) and resume and not args.resume_only_model:
        train_data.restore(resume.checkpoint)
    schedule = make_schedule(args, *extent(train_data, args))
    record = args_record(args, resolved(args, source, template, dtype, identity) | {'rows_a_step': schedule.rows})
    best_anew = check_schedule(args, resume, schedule, record, eval_data is not None)

    try:
        with gpu_errors():
            model, save_dtype = make_model(args, base, dtype, targets)
    except torch.OutOfMemoryError as error:
        raise SwiftliteError(too_large(None, args)) from error
    if said := beyond(train_data, args, positions(read_config(base))):
        say(said)

    folder = resume.checkpoint.parent if resume and resume.same_run else shared_folder(args, source)
    if is_main():
        held.enter_context(claim(folder))
        if resume and resume.same_run:
            go_back(folder, resume.step)
        write_args(folder, record)
    try:
        with gpu_errors():
            trainer = make_trainer(
                args, model, tokenizer, schedule, dtype, save_dtype, folder, train_data, eval_data, record
            )
    except torch.OutOfMemoryError as error:
        raise SwiftliteError(too_large(model, args)) from error
    trainer.best_anew = best_anew
    log = add_callbacks(trainer, args, folder, template, record)
    if is_main():
        write_training_args(folder, trainer.args)
    unit = 'packs' if args.packing else 'rows'
    say(f'{schedule.steps} steps of {schedule.batch_size} x {schedule.accumulation} {unit}, output in {folder}')
    try:
        with gpu_errors():
            if resume and args.resume_only_model:
                trainer.take_weights(resume.checkpoint)
                resume = None
            trainer.train(resume_from_checkpoint=str(resume.checkpoint) if resume else None)
    except torch.OutOfMemoryError as error:
        raise SwiftliteError(trainer.rehearsal.advice(trainer.state.global_step, args)) from error
    except KeyboardInterrupt:
        log.close()
        say(how_to_go_on(folder, trainer.state.global_step))
        raise
    except (OSError, SafetensorError) as error:
        raise SwiftliteError(f'a checkpoint in {folder} cannot be written: {error}') from error
    finally:
        log.close()
    if isinstance(train_data, EncodedStream):
        say('\n'.join(train_data.lines()))
    summary = finish(trainer, folder, lora=save_dtype is None)
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # nobody leaves while another still talks
        trainer.accelerator.free_memory()
        torch.distributed.destroy_process_group()
    return summary


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
