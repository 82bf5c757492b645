"""Shapes of well-known models, for figures without their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .standin_tokenizer import write_tokenizer

QWEN2 = {
    'architectures': ['Qwen2ForCausalLM'],
    'model_type': 'qwen2',
    'max_position_embeddings': 32768,
    'rope_theta': 1000000.0,
    'rms_norm_eps': 1e-6,
    'hidden_act': 'silu',
    'bos_token_id': 151643,
    'eos_token_id': 151645,
    'dtype': 'bfloat16',
    'use_sliding_window': False,
}
PRESETS: dict[str, dict[str, Any]] = {
    'qwen2.5-7b': QWEN2
    | {
        'hidden_size': 3584,
        'intermediate_size': 18944,
        'num_hidden_layers': 28,
        'num_attention_heads': 28,
        'num_key_value_heads': 4,
        'vocab_size': 152064,
        'tie_word_embeddings': False,
    },
    'qwen2.5-0.5b': QWEN2
    | {
        'hidden_size': 896,
        'intermediate_size': 4864,
        'num_hidden_layers': 24,
        'num_attention_heads': 14,
        'num_key_value_heads': 2,
        'vocab_size': 151936,
        'tie_word_embeddings': True,
    },
    'llama3-8b': {
        'architectures': ['LlamaForCausalLM'],
        'model_type': 'llama',
        'hidden_size': 4096,
        'intermediate_size': 14336,
        'num_hidden_layers': 32,
        'num_attention_heads': 32,
        'num_key_value_heads': 8,
        'head_dim': 128,
        'vocab_size': 128256,
        'max_position_embeddings': 8192,
        'rope_theta': 500000.0,
        'rms_norm_eps': 1e-5,
        'hidden_act': 'silu',
        'attention_bias': False,
        'mlp_bias': False,
        'tie_word_embeddings': False,
        'bos_token_id': 128000,
        'eos_token_id': 128001,
        'dtype': 'bfloat16',
    },
}


def write_preset(name: str, folder: Path, tokenizer: bool = True) -> Path:
    """A folder with the preset's config.json, and a stand-in tokenizer unless it is not needed; no weights."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    config = PRESETS[name]
    (path / 'config.json').write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')
    if tokenizer:
        write_tokenizer(path, config['vocab_size'], config['eos_token_id'])
    return path
