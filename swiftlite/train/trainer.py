"""The transformers Trainer with a token-weighted loss over batches cut by length."""

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from swiftlite.errors import SwiftliteError
from swiftlite.template import IGNORE
from swiftlite.train.checkpoints import Checkpoints
from swiftlite.train.model.tuners import parameter_groups, restore
from swiftlite.train.rows.collate import BatchSampler
from swiftlite.train.rows.packing import Rows
from swiftlite.train.rows.stream import EncodedStream, StreamLoader
from swiftlite.train.scale.deepspeed import share_parameters, stage_of
from swiftlite.train.scale.sharded import share_weights
from swiftlite.train.scale.shares import Order, Shares

COUNTS = ('correct', 'trained', 'tokens')
BATCHES_TOGETHER = 50  # of similar rows, with --group_by_length


class SftTrainer(Checkpoints):
    """Loss = summed cross entropy / trained tokens of the whole global batch, over accumulation and processes.

    Args:
        group_by_length: make batches of rows of similar length.
        lora_lr_ratio: learning rate of an adapter's B as a multiple of that of the rest (LoRA+).
    """

    def __init__(self, *args: Any, group_by_length: bool = False, lora_lr_ratio: float | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.group_by_length = group_by_length
        self.lora_lr_ratio = lora_lr_ratio
        self.model_accepts_loss_kwargs = True  # the loss is normalised over the accumulated batch
        self.tokens_seen = 0  # real input tokens of this process
        self._correct: torch.Tensor | int = 0
        self._trained = 0

    def progress(self) -> dict[str, float]:
        counts = torch.tensor([float(self._correct), self._trained, self.tokens_seen], dtype=torch.float64)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts.long().to(self.args.device), 'sum')
        return super().progress() | dict(zip(COUNTS, counts.long().tolist(), strict=True))

    def go_on(self, progress: dict[str, float]) -> None:
        super().go_on(progress)
        if self.args.process_index == 0:
            self._correct, self._trained, self.tokens_seen = (int(progress[name]) for name in COUNTS)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        names = super().get_decay_parameter_names(model)
        return [name for name in names if 'lora_magnitude_vector' not in name]  # lengths are no weights to shrink

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.lora_lr_ratio is not None and self.optimizer is None:  # type: ignore[has-type]
            model = self.model if model is None else model
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            rate, decay = self.args.learning_rate, self.args.weight_decay
            decayed = self.get_decay_parameter_names(model)
            groups = parameter_groups(list(model.named_parameters()), decayed, rate, self.lora_lr_ratio, decay)
            self.optimizer = kind(groups, **options)
        return super().create_optimizer(model)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.args.fsdp:
            share_weights(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def train(self, resume_from_checkpoint: str | None = None, **kwargs: Any) -> Any:
        shared = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if shared and resume_from_checkpoint is not None and hasattr(self.model, 'adapter_start'):
            restore(self.model, Path(resume_from_checkpoint))  # into weights that are whole still
        if self.is_deepspeed_enabled and stage_of(config := self.accelerator.deepspeed_plugin.hf_ds_config.config) == 3:
            half = torch.bfloat16 if self.args.bf16 else torch.float16 if self.args.fp16 else torch.float32
            share_parameters(self.model, config, half, self.args.device)
        return super().train(resume_from_checkpoint, **kwargs)

    def get_train_dataloader(self) -> Any:
        if isinstance(self.train_dataset, EncodedStream):
            return StreamLoader(self.train_dataset, self.args.per_device_train_batch_size, self.data_collator)
        args = self.args
        order = BatchSampler(
            self.train_dataset.lengths,
            args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
            args.data_seed if args.data_seed is not None else args.seed,
            epoch=lambda: int((self.state.epoch or 0) + 1e-6),
            together=BATCHES_TOGETHER if self.group_by_length else 1,
        )
        return self._loader(self.train_dataset, order, args.per_device_train_batch_size)

    def get_eval_dataloader(self, eval_dataset: Rows | None = None) -> DataLoader:
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        order = rows.lengths.argsort(kind='stable')[::-1].tolist()
        return self._loader(rows, order, self.args.per_device_eval_batch_size)

    def _loader(self, rows: Any, order: Order, size: int) -> DataLoader:
        shares = Shares(order, size, self.args.process_index, self.args.world_size)
        return DataLoader(
            rows, batch_sampler=shares, collate_fn=self._collate, pin_memory=self.args.dataloader_pin_memory
        )

    def _collate(self, rows: list[Any]) -> dict[str, Any]:
        return self.data_collator(rows) if rows else {'passes': [], 'tokens': 0}

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor | int]:
        batches = list(islice(epoch_iterator, num_batches))
        self.tokens_seen += sum(batch.pop('tokens') for batch in batches)
        return batches, self._equal_passes(batches)

    def _equal_passes(self, batches: list[dict[str, Any]]) -> torch.Tensor | int:
        """Trained tokens of `batches` in all processes; afterwards all of them make equally many passes.

        They meet in every pass (weights that are shared out are gathered), so one that has fewer makes empty ones.
        """
        count = sum(part['targets'].numel() for batch in batches for part in batch['passes'])
        if self.args.world_size == 1:
            return count
        mine = torch.tensor([[count, *(len(batch['passes']) for batch in batches)]], device=self.args.device)
        counts = self.accelerator.gather(mine)  # [processes, 1 + batches]
        for batch, most in zip(batches, counts[:, 1:].amax(0).tolist(), strict=True):
            missing = most - len(batch['passes'])
            if missing:
                blank = np.zeros(1, dtype=np.int64), np.full(1, IGNORE, dtype=np.int64)
                batch['passes'] += [self.data_collator([blank])['passes'][0]] * missing
        return counts[:, 0].sum()

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        device = self.args.device
        return {n: x.to(device, non_blocking=True) if isinstance(x, torch.Tensor) else x for n, x in inputs.items()}

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        *passes, last = inputs['passes']
        state, syncs = self.accelerator.gradient_state, self.accelerator.sync_gradients
        total = torch.zeros((), device=self.args.device)
        for part in passes:  # gradients of all passes are summed up before processes exchange them
            state._set_sync_gradients(False)
            with self.accelerator.no_sync(model) if syncs else nullcontext():
                total += super().training_step(model, part, num_items_in_batch)
        state._set_sync_gradients(syncs)
        return total + super().training_step(model, last, num_items_in_batch)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        outputs = model(**inputs)
        trained = inputs['targets'].numel()
        self._correct = self._correct + outputs['correct']
        self._trained += trained
        # gradients are averaged over processes, so the loss is scaled by their number
        loss = outputs['loss_sum'] * (
            self.args.world_size / (trained if num_items_in_batch is None else num_items_in_batch)
        )
        return (loss, outputs) if return_outputs else loss

    def all_tokens_seen(self) -> int:
        """Real input tokens of all processes so far."""
        if self.args.world_size == 1:
            return self.tokens_seen
        return int(self.accelerator.reduce(torch.tensor(self.tokens_seen, device=self.args.device), 'sum'))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # not reported; counting walks all modules at every step

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if 'loss' in logs:
            if not math.isfinite(logs['loss']):
                raise SwiftliteError(
                    f'the loss is {logs["loss"]} at step {self.state.global_step}: '
                    'lower --learning_rate, or train with --dtype fp32 or bf16'
                )
            seen = torch.tensor([float(self._correct), self._trained], dtype=torch.float64)
            if self.args.world_size > 1:
                seen = self.accelerator.reduce(seen.to(self.args.device), 'sum')
            logs['token_acc'] = float(seen[0] / seen[1].clamp(min=1))
            self._correct, self._trained = 0, 0
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = 'eval'
    ) -> dict[str, float]:
        """Token-weighted loss and accuracy of the held-out rows; no logits are kept."""
        start = time.time()
        model = self.model_wrapped if self.is_deepspeed_enabled else self.model
        model.eval()
        totals = torch.zeros(3, dtype=torch.float64, device=self.args.device)  # loss, correct, tokens
        with torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                self._equal_passes([batch])
                for part in batch['passes']:
                    outputs = model(**self._prepare_inputs(part))
                    totals[:2] += torch.stack([outputs['loss_sum'].double(), outputs['correct'].double()])
                    totals[2] += part['targets'].numel()
        if self.args.world_size > 1:
            totals = self.accelerator.reduce(totals, 'sum')
        loss, correct, tokens = totals.tolist()
        metrics = {
            f'{metric_key_prefix}_loss': loss / max(tokens, 1),
            f'{metric_key_prefix}_token_acc': correct / max(tokens, 1),
            f'{metric_key_prefix}_runtime': round(time.time() - start, 3),
        }
        self.log(dict(metrics))
        control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # type: ignore[has-type]
        self.control = control
        return metrics
