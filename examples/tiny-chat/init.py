"""Writes tiny-chat with random weights: config.json, generation_config.json, model.safetensors.

    python examples/tiny-chat/init.py --tokenizer swiftlite/assets/tiny-chat --output init

copies the tokenizer beside them, so that the folder is a complete checkpoint for `swiftlite sft --sft_type full`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from tokenizer import CONTEXT, VOCAB_SIZE

TOKENIZER_FILES = ('tokenizer.json', 'tokenizer_config.json')


def config(end: int, pad: int) -> dict[str, Any]:
    """config.json; `end` and `pad` are the ids of <|im_end|> and <|endoftext|>."""
    return {
        'architectures': ['Qwen2ForCausalLM'],
        'model_type': 'qwen2',
        'vocab_size': VOCAB_SIZE,
        'hidden_size': 256,
        'intermediate_size': 640,
        'num_hidden_layers': 7,
        'num_attention_heads': 4,
        'num_key_value_heads': 2,
        'hidden_act': 'silu',
        'max_position_embeddings': CONTEXT,
        'rms_norm_eps': 1e-6,
        'rope_theta': 10000.0,
        'tie_word_embeddings': True,
        'use_sliding_window': False,
        'attention_dropout': 0.0,
        'initializer_range': 0.02,
        'use_cache': True,
        'bos_token_id': None,
        'eos_token_id': end,
        'pad_token_id': pad,
        'torch_dtype': 'bfloat16',
    }


def generation_config(end: int, pad: int) -> dict[str, Any]:
    """generation_config.json: greedy, ends at either end token."""
    return {'do_sample': False, 'eos_token_id': [end, pad], 'pad_token_id': pad, 'max_new_tokens': 512}


def write_configs(folder: Path) -> None:
    """config.json and generation_config.json for the tokenizer in the folder."""
    added = {
        entry['content']: entry['id'] for entry in json.loads((folder / 'tokenizer.json').read_text())['added_tokens']
    }
    end, pad = added['<|im_end|>'], added['<|endoftext|>']
    for name, content in (('config.json', config(end, pad)), ('generation_config.json', generation_config(end, pad))):
        (folder / name).write_text(json.dumps(content, indent=2) + '\n')


def write_weights(folder: Path, seed: int) -> int:
    """Random weights in bf16; returns the number of parameters."""
    import torch
    from transformers import AutoConfig, Qwen2ForCausalLM

    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(AutoConfig.from_pretrained(folder)).to(torch.bfloat16)
    kept = {name: (folder / name).read_text() for name in ('config.json', 'generation_config.json')}
    model.save_pretrained(folder)
    for name, text in kept.items():
        (folder / name).write_text(text)
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tokenizer', type=Path, required=True, help='folder with the files of tokenizer.py')
    parser.add_argument('--output', type=Path, required=True, help='checkpoint folder to write')
    parser.add_argument('--seed', type=int, default=42)
    parser.add_argument('--configs-only', action='store_true', help='write no weights')
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if args.tokenizer.resolve() != args.output.resolve():
            shutil.copyfile(args.tokenizer / name, args.output / name)
    write_configs(args.output)
    if not args.configs_only:
        print(f'{write_weights(args.output, args.seed):,} parameters')


if __name__ == '__main__':
    main()
