"""The yardstick of `bench train`: transformers' Trainer and peft as they come, on padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from ..train.rows.encoded import EncodedRows


def adapted(model: Any, options: dict[str, Any]) -> Any:
    """With peft's LoRA of these options."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(task_type='CAUSAL_LM', **options))


class Plain(Trainer):
    """transformers' Trainer over `data` in a given order of its rows."""

    def __init__(self, model: Any, arguments: TrainingArguments, data: EncodedRows, order: Sequence[int]):
        rows = [data[index] for index in order]
        super().__init__(model=model, args=arguments, train_dataset=rows, data_collator=padded)  # type: ignore[arg-type]

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


def padded(rows: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels [B, longest], padded on the right."""
    longest = max(len(ids) for ids, _ in rows)
    shape = (len(rows), longest)
    batch = {
        'input_ids': np.zeros(shape, dtype=np.int64),
        'attention_mask': np.zeros(shape, dtype=np.int64),
        'labels': np.full(shape, -100, dtype=np.int64),
    }
    for index, (ids, labels) in enumerate(rows):
        batch['input_ids'][index, : len(ids)] = ids
        batch['attention_mask'][index, : len(ids)] = 1
        batch['labels'][index, : len(ids)] = labels
    return {name: torch.from_numpy(array) for name, array in batch.items()}
