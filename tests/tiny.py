"""Tiny random checkpoints in the exact upstream layout, for tests."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

# of an engine: the same tokens on every device, and room for others on it
EXACT: dict[str, Any] = {'dtype': 'fp32', 'num_gpu_blocks_override': 2048}
EXACT_FLAGS = [word for name, value in EXACT.items() for word in (f'--{name}', str(value))]


def tiny_qwen2(folder: Path, seed: int = 0, **config: Any) -> Path:
    """Write a random Qwen2 checkpoint (no tokenizer); biases and norms are random too."""
    return tiny_model(folder, 'qwen2', seed, **config)


def tiny_model(folder: Path, hf_model_type: str, seed: int = 0, **config: Any) -> Path:
    """Write a random checkpoint of a transformers `model_type`, as `tiny_qwen2` does."""
    settings = {
        'vocab_size': 128,
        'hidden_size': 64,
        'intermediate_size': 96,
        'num_hidden_layers': 2,
        'num_attention_heads': 4,
        'num_key_value_heads': 2,
        'max_position_embeddings': 256,
        'rope_theta': 10000.0,
        'tie_word_embeddings': False,
        'bos_token_id': 0,
        'eos_token_id': 1,
        'dtype': 'float32',
    }
    settings.update(config)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(hf_model_type, **settings))
    randomize(model, seed)
    model.save_pretrained(folder)
    return folder


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Weights large enough that tokens differ clearly; biases and norm weights away from 0 and 1."""
    g = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.dim() == 1:
            p.data = (torch.rand(p.shape, generator=g) + 0.5).to(p.dtype)
        else:
            p.data = (torch.randn(p.shape, generator=g) * 1.5 * p.shape[-1] ** -0.5).to(p.dtype)
    for name, p in model.named_parameters():
        if name.endswith('.bias'):
            p.data = (torch.randn(p.shape, generator=g) * 0.3).to(p.dtype)


def tiny_adapter(folder: Path, base: Path, seed: int = 0, rank: int = 4, targets: Any = None, **config: Any) -> Path:
    """Write a random PEFT LoRA adapter for a checkpoint, strong enough to change its tokens."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    targets = targets or ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type='CAUSAL_LM', **config),
    )
    g = torch.Generator().manual_seed(seed + 1)
    for name, p in model.named_parameters():
        if 'lora_magnitude' in name or 'modules_to_save' in name:
            p.data = p.data * (torch.rand(p.shape, generator=g) + 0.5)
        elif 'lora_' in name:
            p.data = torch.randn(p.shape, generator=g) * (0.7 * p.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    return folder
