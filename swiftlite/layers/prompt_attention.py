"""Attention of prompts that have nothing in the cache, by torch's own kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from swiftlite_kernels.cache.dtypes import fp8_dtype

# the fastest for long prompts on Hopper first; torch takes the first that can
BACKENDS = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
ROUNDED = 256  # tokens: the library plans each length anew (30 ms), so there are few


def prompt_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    prompts: Sequence[tuple[int, int]],
    scale: float,
) -> None:
    """Causal attention of each prompt (first token, count) to itself; writes its rows of `out`, no others.

    q, out [T, heads, d]; k, v [T, kv_heads, d], any strides.
    """
    for first, count in prompts:
        rounded = -(-count // ROUNDED) * ROUNDED
        # no token sees what follows it, so anything may stand behind a prompt
        parts = [x[first : first + rounded] for x in (q, k, v)]
        missing = rounded - parts[0].shape[0]
        if missing:
            parts = [F.pad(x, (0, 0, 0, 0, 0, missing)) for x in parts]
        query, key, value = (x.transpose(0, 1)[None] for x in parts)
        with sdpa_kernel(BACKENDS, set_priority=True):
            result = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scale, enable_gqa=True)
        out[first : first + count] = result[0].transpose(0, 1)[:count]


def as_stored(x: torch.Tensor, kv_cache_dtype: str, scale: torch.Tensor) -> torch.Tensor:
    """Keys or values [T, kv_heads, d] as an fp8 cache gives them back, in x's dtype.

    With them a prompt gets the answer it would have got in chunks or from the prefix cache: what a token sees never
    depends on what was computed in the same step.
    """
    stored = fp8_dtype(kv_cache_dtype)
    assert stored is not None
    limit = torch.finfo(stored).max
    rounded = (x.float() / scale).clamp(-limit, limit).to(stored)
    return (rounded.float() * scale).to(x.dtype)
