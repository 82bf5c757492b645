"""Qwen v1 (QWenLMHeadModel) written out plainly: a random checkpoint in its upstream layout, and its forward pass."""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

CONFIG = {
    'architectures': ['QWenLMHeadModel'],
    'model_type': 'qwen',
    'hidden_size': 64,
    'intermediate_size': 192,  # w1 and w2 are half as wide
    'num_hidden_layers': 2,
    'num_attention_heads': 4,
    'kv_channels': 16,
    'vocab_size': 128,
    'seq_length': 256,
    'max_position_embeddings': 256,
    'layer_norm_epsilon': 1e-6,
    'rotary_emb_base': 10000,
    'rotary_pct': 1.0,
    'no_bias': True,
    'use_dynamic_ntk': True,
    'use_logn_attn': True,
    'tie_word_embeddings': False,
    'torch_dtype': 'float32',
}


def write_qwen_v1(folder: Path, seed: int = 0, shards: int = 2) -> dict[str, torch.Tensor]:
    """Write config.json and the shards with their index; returns the tensors."""
    c, g = CONFIG, torch.Generator().manual_seed(seed)
    hidden, half = c['hidden_size'], c['intermediate_size'] // 2

    def matrix(rows, columns):
        return torch.randn(rows, columns, generator=g) * 1.5 * columns**-0.5

    tensors = {
        'transformer.wte.weight': matrix(c['vocab_size'], hidden),
        'lm_head.weight': matrix(c['vocab_size'], hidden),
    }
    tensors['transformer.ln_f.weight'] = torch.rand(hidden, generator=g) + 0.5
    for i in range(c['num_hidden_layers']):
        h = f'transformer.h.{i}'
        tensors[f'{h}.ln_1.weight'] = torch.rand(hidden, generator=g) + 0.5
        tensors[f'{h}.ln_2.weight'] = torch.rand(hidden, generator=g) + 0.5
        tensors[f'{h}.attn.c_attn.weight'] = matrix(3 * hidden, hidden)
        tensors[f'{h}.attn.c_attn.bias'] = torch.randn(3 * hidden, generator=g) * 0.3
        tensors[f'{h}.attn.c_proj.weight'] = matrix(hidden, hidden)
        tensors[f'{h}.mlp.w1.weight'] = matrix(half, hidden)
        tensors[f'{h}.mlp.w2.weight'] = matrix(half, hidden)
        tensors[f'{h}.mlp.c_proj.weight'] = matrix(hidden, half)
        tensors[f'{h}.attn.rotary_emb.inv_freq'] = torch.zeros(8)  # early uploads carry it; nobody reads it
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'config.json').write_text(json.dumps(c))
    names = sorted(tensors)
    weight_map = {}
    for k in range(shards):
        file = f'model-{k + 1:05d}-of-{shards:05d}.safetensors'
        part = names[k::shards]
        save_file({n: tensors[n].contiguous() for n in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / 'model.safetensors.index.json').write_text(json.dumps({'metadata': {}, 'weight_map': weight_map}))
    return tensors


def qwen_v1_logits(tensors: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """[T, vocab] fp32 logits of one sequence no longer than seq_length."""
    c = CONFIG
    heads, d, n = c['num_attention_heads'], c['kv_channels'], len(ids)

    def norm(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + c['layer_norm_epsilon']) * weight

    angles = torch.outer(torch.arange(n).float(), c['rotary_emb_base'] ** (-torch.arange(0, d, 2).float() / d))
    cos, sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()

    def rotate(x):  # [T, heads, d]
        left, right = x.chunk(2, -1)
        return x * cos[:, None] + torch.cat([-right, left], -1) * sin[:, None]

    x = tensors['transformer.wte.weight'][torch.tensor(ids)]
    mask = torch.full((n, n), -math.inf).triu(1)
    for i in range(c['num_hidden_layers']):
        w = {k.split(f'transformer.h.{i}.')[1]: v for k, v in tensors.items() if k.startswith(f'transformer.h.{i}.')}
        y = F.linear(norm(x, w['ln_1.weight']), w['attn.c_attn.weight'], w['attn.c_attn.bias'])
        q, k, v = (part.view(n, heads, d) for part in y.split(heads * d, -1))
        scores = torch.einsum('qhd,khd->hqk', rotate(q), rotate(k)) * d**-0.5 + mask
        y = torch.einsum('hqk,khd->qhd', scores.softmax(-1), v).reshape(n, heads * d)
        x = x + F.linear(y, w['attn.c_proj.weight'])
        y = norm(x, w['ln_2.weight'])
        x = x + F.linear(
            F.linear(y, w['mlp.w1.weight']) * F.silu(F.linear(y, w['mlp.w2.weight'])), w['mlp.c_proj.weight']
        )
    return F.linear(norm(x, tensors['transformer.ln_f.weight']), tensors['lm_head.weight'])
