"""The trainer of a run, put together from its parts: `sft` runs it, `bench train` measures it."""

from pathlib import Path
from typing import Any

import torch
import transformers

from swiftlite.args.sft import SftArgs
from swiftlite.train.callbacks import Events, RunLog
from swiftlite.train.collate import Collator
from swiftlite.train.model import pass_overhead
from swiftlite.train.packing import Rows
from swiftlite.train.ranks import is_main, say
from swiftlite.train.rehearsal import Rehearsal
from swiftlite.train.settings import Schedule, training_arguments
from swiftlite.train.trainer import SftTrainer


def make_trainer(
    args: SftArgs,
    model: Any,
    tokenizer: Any,
    schedule: Schedule,
    dtype: torch.dtype,
    save_dtype: torch.dtype | None,
    folder: Path,
    train_data: Rows,
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


def add_callbacks(trainer: SftTrainer, args: SftArgs, folder: Path) -> RunLog:
    log = RunLog(folder, trainer)
    trainer.pop_callback(transformers.PrinterCallback)
    trainer.add_callback(log)
    if 'tensorboard' in (args.report_to or []) and is_main():
        try:
            trainer.add_callback(Events(folder))
        except ImportError:
            say("note: no TensorBoard files are written; pip install 'swiftlite[plots]' for them")
    return log


def pad_id(tokenizer: Any) -> int:
    return getattr(tokenizer, 'pad_token_id', None) or 0
