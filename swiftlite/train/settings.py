"""From the arguments of sft to numbers of steps and TrainingArguments."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from swiftlite.args.sft import SftArgs
from swiftlite.errors import UsageError
from swiftlite.train.scale.deepspeed import deepspeed_config
from swiftlite.train.scale.ranks import world_size

ROWS = 16  # of a step, where neither --batch_size nor --gradient_accumulation_steps is given
PASS_TOKENS = 2048  # of a forward pass then, unless one row is longer
GPU_PASS_TOKENS = 8192  # the same on a GPU, where they fit: see Rehearsal


@dataclass(frozen=True)
class Schedule:
    """Numbers of a run, derived from the size of the data."""

    batch_size: int  # rows a device
    eval_batch_size: int
    budget: int | None  # padded tokens of a forward pass
    accumulation: int
    steps: int
    warmup: int
    rows: int  # between two changes of the weights, of all devices


def make_schedule(args: SftArgs, rows: int, longest: int) -> Schedule:
    """`rows` of training data, the longest of `longest` tokens."""
    world = world_size()
    if args.batch_size is not None:
        batch, budget = args.batch_size, None
        accumulation = args.gradient_accumulation_steps or math.ceil(ROWS / batch / world)
    else:
        accumulation = args.gradient_accumulation_steps or 1
        usual = GPU_PASS_TOKENS if torch.cuda.is_available() else PASS_TOKENS
        batch, budget = math.ceil(ROWS / accumulation / world), max(longest, usual)
    batches = math.ceil(rows / (batch * world))
    steps = math.ceil(args.num_train_epochs * math.ceil(batches / accumulation))
    if args.max_steps > 0:
        steps = args.max_steps
    if steps == 0:
        raise UsageError(
            f'--num_train_epochs {args.num_train_epochs:g} leaves nothing to do: give more, or --max_steps'
        )
    eval_batch = args.eval_batch_size or batch
    warmup = args.warmup_steps or round(steps * args.warmup_ratio)
    return Schedule(batch, eval_batch, budget, accumulation, steps, warmup, batch * accumulation * world)


def training_arguments(
    args: SftArgs, folder: Path, schedule: Schedule, dtype: torch.dtype, evaluate: bool
) -> TrainingArguments:
    gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=not gpu,
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        per_device_train_batch_size=schedule.batch_size,
        per_device_eval_batch_size=schedule.eval_batch_size,
        gradient_accumulation_steps=schedule.accumulation,
        num_train_epochs=args.num_train_epochs,
        max_steps=args.max_steps,
        learning_rate=args.learning_rate,
        weight_decay=args.weight_decay,
        adam_beta1=args.adam_beta1,
        adam_beta2=args.adam_beta2,
        adam_epsilon=args.adam_epsilon,
        optim='adamw_torch_fused',
        lr_scheduler_type=args.lr_scheduler_type,
        warmup_steps=schedule.warmup,
        max_grad_norm=args.max_grad_norm,
        logging_steps=args.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy='steps' if evaluate else 'no',
        eval_steps=args.eval_steps if evaluate else None,
        save_strategy='steps',
        save_steps=args.save_steps,
        save_total_limit=args.save_total_limit,
        metric_for_best_model=args.metric_for_best_model if evaluate else None,
        greater_is_better=args.greater_is_better if evaluate else None,
        seed=args.seed,
        data_seed=args.dataset_seed,
        remove_unused_columns=False,
        ignore_data_skip=args.streaming,  # a stream knows where it was
        dataloader_num_workers=0,  # a batch is put together in a millisecond
        dataloader_pin_memory=gpu,
        accelerator_config={'non_blocking': True},
        ddp_find_unused_parameters=False,
        report_to='none',
        disable_tqdm=True,
        **sharing(args, dtype),
    )
    if arguments.world_size == 1:
        arguments.device  # noqa: B018 (sets the number of GPUs)
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one process drives one GPU
    return arguments


def sharing(args: SftArgs, dtype: torch.dtype) -> dict[str, Any]:
    """The TrainingArguments that share weights out to the processes.

    Raises:
        UsageError: there is one process only, or DeepSpeed is not installed.
    """
    chosen = '--fsdp' if args.fsdp else '--deepspeed' if args.deepspeed else None
    if chosen is None:
        return {}
    if world_size() == 1:
        raise UsageError(f'{chosen} shares weights out to several processes: set NPROC_PER_NODE=2, or leave it out')
    if args.deepspeed:
        return {'deepspeed': deepspeed_config(args.deepspeed, dtype)}
    return {
        'fsdp': True,
        'fsdp_config': {
            'version': 2,
            'reshard_after_forward': 'full_shard' in args.fsdp,
            'cpu_offload': 'offload' in args.fsdp,
        },
    }
