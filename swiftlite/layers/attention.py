"""Attention over the paged KV cache: rotates and writes this step's keys and values, then attends."""

from __future__ import annotations

import torch
from torch import nn

from swiftlite_kernels.attention import unified_attention
from swiftlite_kernels.paged_lora import Expansion
from swiftlite_kernels.rotary import rotary_and_cache

from .context import current_step
from .norm import RMSNorm
from .prompt_attention import as_stored, prompt_attention
from .rotary import RotaryEmbedding


class Attention(nn.Module):
    """Causal grouped-query attention; the model runner sets the caches, [blocks, block_size, kv_heads, d] each.

    An fp8 cache holds keys / k_scale and values / v_scale; the factors are 1 unless the checkpoint has some.
    """

    def __init__(
        self,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        sliding_window: int | None,
        rotary: RotaryEmbedding,
        norms: tuple[RMSNorm, RMSNorm] | None,
        device: torch.device | str,
    ):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.scale = head_dim**-0.5
        self.window = (sliding_window - 1, 0) if sliding_window else (-1, -1)
        self.rotary = rotary
        self.q_norm: RMSNorm | None = norms[0] if norms else None
        self.k_norm: RMSNorm | None = norms[1] if norms else None
        self.key_cache = self.value_cache = torch.empty(0)
        self.kv_cache_dtype = 'auto'
        self.register_buffer('k_scale', torch.ones(1, dtype=torch.float32, device=device), persistent=False)
        self.register_buffer('v_scale', torch.ones(1, dtype=torch.float32, device=device), persistent=False)
        self._has_scales = False

    def set_scale(self, name: str, value: torch.Tensor) -> None:
        """Set the factor 'k_scale' or 'v_scale', one number; ValueError for one that cannot divide."""
        number = float(value)
        if not 0 < number < float('inf'):
            raise ValueError(f'a factor of the cache must be finite and above 0, got {number:g}')
        getattr(self, name).fill_(number)
        self._has_scales = self._has_scales or number != 1

    def forward(
        self,
        positions: torch.Tensor,
        qkv: torch.Tensor,
        bias: torch.Tensor | None,
        rows: torch.Tensor | None = None,
        lora: Expansion | None = None,
    ) -> torch.Tensor:
        """positions [T]; qkv [T, (heads + 2 * kv_heads) * d], overwritten → [T, heads * d], or of `rows` only.

        lora: what adapters add to qkv.
        """
        step = current_step()
        rotary_and_cache(
            qkv,
            bias,
            self.q_norm.weight if self.q_norm is not None else None,
            self.k_norm.weight if self.k_norm is not None else None,
            self.q_norm.eps if self.q_norm is not None else 0.0,
            positions,
            self.head_dim,
            self.rotary.cos_sin,
            True,
            self.key_cache,
            self.value_cache,
            step.slot_mapping,
            self.kv_cache_dtype,
            self.k_scale,
            self.v_scale,
            lora,
        )
        q = qkv[:, : self.num_heads * self.head_dim].unflatten(-1, (self.num_heads, self.head_dim))
        if rows is not None:
            assert step.row_starts is not None
            return self._attend(q[rows], step.row_starts, 1, step.seq_lens).flatten(1)
        if not step.dense:
            return self._attend(q, step.cu_seqlens_q, step.max_query_len, step.seq_lens).flatten(1)
        if step.sparse_lens is not None:
            out = self._attend(q, step.cu_seqlens_q, step.max_query_len, step.sparse_lens)
        else:
            out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        k, v = qkv[:, self.num_heads * self.head_dim :].unflatten(-1, (2, self.num_kv_heads, self.head_dim)).unbind(1)
        if self.kv_cache_dtype != 'auto':
            k = as_stored(k, self.kv_cache_dtype, self.k_scale)
            v = as_stored(v, self.kv_cache_dtype, self.v_scale)
        prompt_attention(q, k, v, out, step.dense, self.scale)
        return out.flatten(1)

    def _attend(
        self, q: torch.Tensor, cu_seqlens_q: torch.Tensor, max_query_len: int, seq_lens: torch.Tensor
    ) -> torch.Tensor:
        """q [T, heads, d] → the same shape."""
        step = current_step()
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        k_scale: torch.Tensor | None = None
        v_scale: torch.Tensor | None = None
        if self._has_scales and self.kv_cache_dtype != 'auto':
            shape = seq_lens.shape[0], self.num_kv_heads
            k_scale, v_scale = self.k_scale.expand(shape), self.v_scale.expand(shape)
        unified_attention(
            q,
            self.key_cache,
            self.value_cache,
            out,
            cu_seqlens_q,
            max_query_len,
            seq_lens,
            step.max_seq_len,
            self.scale,
            True,
            self.window,
            step.block_tables,
            0.0,
            None,
            k_scale,
            v_scale,
            shared_prefix=step.shared,
        )
        return out
