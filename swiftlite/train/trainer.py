"""The transformers Trainer with a token-weighted loss, batches cut by length and checkpoints in the base's dtype."""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import Trainer

from swiftlite.errors import SwiftliteError
from swiftlite.train.collate import BatchSampler
from swiftlite.train.packing import Rows
from swiftlite.train.tuners import parameter_groups, rebase, restore

MASTER = 'master_weights.safetensors'
BATCHES_TOGETHER = 50  # of similar rows, with --group_by_length


class SftTrainer(Trainer):
    """Loss = summed cross entropy / trained tokens of the whole global batch, over accumulation and processes.

    Args:
        tokenizer: saved beside full weights (given as `processing_class` the Trainer would change the model's ids).
        save_dtype: dtype of saved full weights; None when only an adapter is trained. Where it is not fp32 the fp32
            weights are saved too, since training continues from them.
        group_by_length: make batches of rows of similar length.
        lora_lr_ratio: learning rate of an adapter's B as a multiple of that of the rest (LoRA+).
    """

    def __init__(
        self,
        *args: Any,
        tokenizer: Any,
        save_dtype: torch.dtype | None = None,
        group_by_length: bool = False,
        lora_lr_ratio: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.tokenizer = tokenizer
        self.save_dtype = save_dtype
        self.group_by_length = group_by_length
        self.lora_lr_ratio = lora_lr_ratio
        self.model_accepts_loss_kwargs = True  # the loss is normalised over the accumulated batch
        self.tokens_seen = 0  # real input tokens of this process
        self._correct: torch.Tensor | int = 0
        self._trained = 0

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

    def _get_train_sampler(self, train_dataset: Rows | None = None) -> BatchSampler:
        return BatchSampler(
            (train_dataset or self.train_dataset).lengths,
            self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size,
            self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            epoch=lambda: int((self.state.epoch or 0) + 1e-6),
            together=BATCHES_TOGETHER if self.group_by_length else 1,
        )

    def _get_eval_sampler(self, eval_dataset: Rows) -> list[int]:
        return eval_dataset.lengths.argsort(kind='stable')[::-1].tolist()

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor | int]:
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        count: torch.Tensor | int = sum(part['targets'].numel() for batch in batches for part in batch['passes'])
        self.tokens_seen += sum(batch.pop('tokens') for batch in batches)
        if self.args.world_size > 1:
            count = self.accelerator.reduce(torch.tensor(count, device=device), 'sum')
        return batches, count

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        losses = [super(SftTrainer, self).training_step(model, part, num_items_in_batch) for part in inputs['passes']]
        return torch.stack(losses).sum()

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
                seen = self.accelerator.reduce(seen.float().to(self.args.device), 'sum')
            logs['token_acc'] = float(seen[0] / seen[1].clamp(min=1))
            self._correct, self._trained = 0, 0
        super().log(logs, start_time)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = 'eval'
    ) -> dict[str, float]:
        """Token-weighted loss and accuracy of the held-out rows; no logits are kept."""
        start = time.time()
        self.model.eval()
        totals = torch.zeros(3, dtype=torch.float32, device=self.args.device)  # loss, correct, tokens
        with torch.no_grad():
            for batch in self.get_eval_dataloader(eval_dataset):
                for part in batch['passes']:
                    outputs = self.model(**self._prepare_inputs(part))
                    totals[:2] += torch.stack([outputs['loss_sum'], outputs['correct'].float()])
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

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        if self.save_dtype is None:
            super()._save(output_dir, state_dict)
            rebase(self.accelerator.unwrap_model(self.model), Path(output_dir or self.args.output_dir))
            return
        folder = Path(output_dir or self.args.output_dir)
        model = self.accelerator.unwrap_model(self.model)
        cast: dict[int, torch.Tensor] = {}  # tied weights stay tied
        state = {
            name: cast.setdefault(tensor.data_ptr(), tensor.to(self.save_dtype))
            for name, tensor in (state_dict or model.state_dict()).items()
        }
        super()._save(str(folder), state)
        self.tokenizer.save_pretrained(str(folder))
        file = folder / 'config.json'
        config = json.loads(file.read_text(encoding='utf-8'))
        config.pop('torch_dtype', None)
        config['dtype'] = str(self.save_dtype).removeprefix('torch.')
        config['use_cache'] = True  # off while training
        file.write_text(json.dumps(config, ensure_ascii=False, indent=2) + '\n', encoding='utf-8')
        if self.save_dtype != torch.float32 and not self.args.save_only_model:
            save_file({n: p.detach().contiguous() for n, p in model.named_parameters()}, str(folder / MASTER))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if hasattr(self.model, 'adapter_start'):
            restore(self.model, Path(resume_from_checkpoint))
            return
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        file = Path(resume_from_checkpoint) / MASTER
        if self.save_dtype is not None and file.is_file():
            weights = load_file(str(file))
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(weights[name])
