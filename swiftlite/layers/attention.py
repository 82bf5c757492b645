"""Attention over the paged KV cache: writes this step's keys and values, then attends."""

from __future__ import annotations

import torch
from torch import nn

from swiftlite_kernels.attention import unified_attention
from swiftlite_kernels.cache import reshape_and_cache_flash

from .context import current_step


class Attention(nn.Module):
    """Causal grouped-query attention; the model runner sets the caches, [blocks, block_size, kv_heads, d] each."""

    def __init__(
        self, num_heads: int, num_kv_heads: int, head_dim: int, sliding_window: int | None, device: torch.device | str
    ):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.scale = head_dim**-0.5
        self.window = (sliding_window - 1, 0) if sliding_window else (-1, -1)
        self.key_cache = self.value_cache = torch.empty(0)
        self.register_buffer('one', torch.ones(1, dtype=torch.float32, device=device), persistent=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q [T, heads * d], k and v [T, kv_heads * d] (may be strided) → [T, heads * d]."""
        step = current_step()
        q = q.unflatten(-1, (self.num_heads, self.head_dim))
        k = k.unflatten(-1, (self.num_kv_heads, self.head_dim))
        v = v.unflatten(-1, (self.num_kv_heads, self.head_dim))
        reshape_and_cache_flash(k, v, self.key_cache, self.value_cache, step.slot_mapping, 'auto', self.one, self.one)
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        unified_attention(
            q,
            self.key_cache,
            self.value_cache,
            out,
            step.cu_seqlens_q,
            step.max_query_len,
            step.seq_lens,
            step.max_seq_len,
            self.scale,
            True,
            self.window,
            step.block_tables,
            0.0,
            None,
            None,
            None,
        )
        return out.flatten(1)
