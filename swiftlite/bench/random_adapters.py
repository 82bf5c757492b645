"""Random PEFT adapters for a network."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..models.config import DecoderConfig

MLP = ('gate_proj', 'up_proj', 'down_proj')


def write_adapters(model: DecoderConfig, folder: Path, count: int, rank: int, device: str) -> list[str]:
    """The folders of `count` adapters over all linear layers, in bf16; `device` draws the numbers.

    Their modules have the names of Llama and Qwen2, which all native layouts share.
    """
    paths = []
    for index in range(count):
        path = folder / f'adapter-{index}'
        path.mkdir()
        generator = torch.Generator(device).manual_seed(index)
        tensors = {}
        for layer in range(model.num_layers):
            for name, (n_in, n_out) in model.linear_sizes.items():
                module = f'{"mlp" if name in MLP else "self_attn"}.{name}'
                stem = f'base_model.model.model.layers.{layer}.{module}'
                for part, shape in (('lora_A', (rank, n_in)), ('lora_B', (n_out, rank))):
                    values = torch.randn(shape, generator=generator, device=device) * 0.01
                    tensors[f'{stem}.{part}.weight'] = values.bfloat16().cpu()
        save_file(tensors, path / 'adapter_model.safetensors')
        config = {
            'peft_type': 'LORA',
            'task_type': 'CAUSAL_LM',
            'r': rank,
            'lora_alpha': 2 * rank,
            'lora_dropout': 0.0,
            'bias': 'none',
            'fan_in_fan_out': False,
            'target_modules': list(model.linear_sizes),
        }
        (path / 'adapter_config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
        paths.append(str(path))
    return paths
