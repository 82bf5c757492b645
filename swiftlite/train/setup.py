"""The trainer of a run, put together from its parts: `sft` runs it, `bench train` measures it."""

from pathlib import Path
from typing import Any

import torch
import transformers

from swiftlite.args.sft import SftArgs
from swiftlite.errors import UsageError
from swiftlite.template import Template
from swiftlite.train.model.make import pass_overhead
from swiftlite.train.rows.collate import Collator
from swiftlite.train.rows.packing import Rows
from swiftlite.train.rows.stream import EncodedStream
from swiftlite.train.scale.rehearsal import Rehearsal
from swiftlite.train.settings import Schedule, training_arguments
from swiftlite.train.trainer import SftTrainer
from swiftlite.train.watching.callbacks import EarlyStop, RunLog
from swiftlite.train.watching.reports import open_reports
from swiftlite.train.watching.samples import Samples


def make_trainer(
    args: SftArgs,
    model: Any,
    tokenizer: Any,
    schedule: Schedule,
    dtype: torch.dtype,
    save_dtype: torch.dtype | None,
    folder: Path,
    train_data: Rows | EncodedStream,
    eval_data: Rows | None = None,
    record: dict[str, Any] | None = None,
) -> SftTrainer:
    """A trainer that writes into `folder`, checkpoints with `record` as sft_args.json.

    `save_dtype` is that of full weights, None for an adapter.
    """
    trainer = SftTrainer(
        model=model,
        args=training_arguments(args, folder, schedule, dtype, eval_data is not None),
        data_collator=Collator(pad_id(tokenizer), pass_overhead(model), schedule.budget, args.padding_free),
        train_dataset=train_data,
        eval_dataset=eval_data,
        tokenizer=tokenizer,
        save_dtype=save_dtype,
        record=record,
        group_by_length=args.group_by_length,
        lora_lr_ratio=args.lora_lr_ratio,
    )
    trainer.rehearsal = Rehearsal(trainer, args, schedule, dtype)
    trainer.add_callback(trainer.rehearsal)
    return trainer


def add_callbacks(
    trainer: SftTrainer, args: SftArgs, folder: Path, template: Template, record: dict[str, Any]
) -> RunLog:
    """What watches a run: the log and its reports, samples, an early end. Returns the log."""
    log = RunLog(folder, trainer, open_reports(args, folder, record))
    trainer.pop_callback(transformers.PrinterCallback)
    if args.early_stop_interval is not None:
        if trainer.eval_dataset is None:
            raise UsageError('--early_stop_interval needs held-out rows: give --val_dataset or --dataset_test_ratio')
        trainer.add_callback(EarlyStop(args.early_stop_interval))
    trainer.add_callback(log)
    if args.sample_prompts:
        trainer.add_callback(Samples(trainer, args, template, folder, log.say))
    return log


def pad_id(tokenizer: Any) -> int:
    return getattr(tokenizer, 'pad_token_id', None) or 0
