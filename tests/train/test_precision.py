"""Half precision follows fp32, on a CPU and on a GPU where there is one."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from swiftlite.train.model.make import resolve_dtype

HALVES = ['bf16', 'fp16'] if torch.cuda.is_available() else ['bf16']


def losses(summary: dict) -> list[float]:
    lines = (Path(summary['last_model_checkpoint']).parent / 'logging.jsonl').read_text().splitlines()
    return [entry['loss'] for entry in map(json.loads, lines) if 'loss' in entry]


@pytest.mark.parametrize('kind', ['lora', 'full'])
@pytest.mark.parametrize('dtype', HALVES)
def test_mixed_precision_follows_fp32(sft, kind, dtype):
    flags = {'sft_type': kind, 'num_train_epochs': 3, 'learning_rate': 1e-3}
    exact, rough = sft(dtype='fp32', **flags), sft(dtype=dtype, **flags)
    assert losses(rough) == pytest.approx(losses(exact), rel=0.02)
    name = 'adapter_model.safetensors' if kind == 'lora' else 'model.safetensors'
    saved = load_file(Path(rough['last_model_checkpoint'], name))
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


@pytest.mark.parametrize(('card', 'chosen'), [('Ampere', torch.bfloat16), ('Turing', torch.float16)])
def test_the_dtype_is_one_that_the_gpu_computes_in(monkeypatch, card, chosen):
    """torch says of older GPUs too that they have bf16: they emulate it, at a fraction of the speed of fp16."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    support = lambda including_emulation=True: including_emulation or card == 'Ampere'  # noqa: E731
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', support)
    assert resolve_dtype('auto') == chosen


def test_activations_can_be_recomputed(sft):
    flags = {'dtype': 'fp32', 'learning_rate': 1e-3}
    plain, again = sft(**flags), sft(gradient_checkpointing=True, **flags)
    assert losses(again) == pytest.approx(losses(plain), abs=1e-4)


def test_resuming_in_half_precision(sft):
    flags = {'dtype': 'bf16', 'num_train_epochs': 3, 'save_steps': 4, 'save_total_limit': 5, 'lora_dropout': 0.1}
    whole = sft(**flags)
    resumed = sft(**flags, resume_from_checkpoint=str(Path(whole['last_model_checkpoint']).parent / 'checkpoint-4'))
    assert losses(resumed) == pytest.approx(losses(whole)[4:], abs=1e-3)
