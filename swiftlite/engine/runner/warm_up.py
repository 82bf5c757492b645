"""What a first request would otherwise wait for: libraries that plan and kernels that compile when first used."""

from __future__ import annotations

import torch

from swiftlite_kernels.sampling import sample

from ...layers.prompt_attention import ROUNDED, prompt_attention
from ...models.config import DecoderConfig


@torch.inference_mode()
def warm_up(config: DecoderConfig, dtype: torch.dtype, device: str, long_prompts: bool) -> None:
    """Use what captured steps do not: the sampler's kernels and, for long prompts, torch's attention (a second).

    Needs nothing of the model, so it may run in a thread beside loading; it must end before a capture begins.
    """
    rows = 2
    raw = torch.randn(rows, config.vocab_size, dtype=dtype, device=device)
    one = torch.ones(rows, device=device)
    five = torch.full((rows,), 5, dtype=torch.int32, device=device)
    seeds, positions = torch.zeros(2, rows, dtype=torch.int64, device=device).unbind(0)
    for logits in (raw, raw.float()):  # those that penalties, biases and masks change are fp32
        sample(logits, None, None, None, None, None, None)
        sample(logits, one, None, None, None, seeds, positions)
        sample(logits, one, five, one, one, seeds, positions)
    if long_prompts:
        heads = config.num_heads + 2 * config.num_kv_heads
        qkv = torch.zeros(ROUNDED, heads, config.head_dim, dtype=dtype, device=device)
        q, k, v = qkv.split([config.num_heads, config.num_kv_heads, config.num_kv_heads], dim=1)
        prompt_attention(q, k, v, torch.empty_like(q), ((0, ROUNDED),), config.head_dim**-0.5)
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
