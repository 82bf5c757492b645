"""Attention of new tokens to themselves and to what the packed cache holds: vLLM's module of this name.

The op of the same name without a cache is in triton_prefill_attention.
"""

from typing import Any

import torch

from swiftlite_kernels.dispatch import backend
from swiftlite_kernels.paged_attention.checks import check_packed

__all__ = ['context_attention_fwd']


def context_attention_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    kv_cache_dtype: str,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    b_loc: torch.Tensor,
    b_start_loc: torch.Tensor,
    b_seq_len: torch.Tensor,
    max_seq_len: int,
    max_input_len: int,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    alibi_slopes: torch.Tensor | None = None,
    sliding_window: int | None = None,
    sm_scale: float | None = None,
    skip_decode: bool = False,
    fp8_out_scale: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    is_block_table_ptr: Any = False,
) -> None:
    """Causal attention of each sequence's new tokens to its cached tokens and to themselves; writes o.

    q, o [T, q_heads, head_size] and k, v [T, kv_heads, head_size] are the new tokens, rows may be strided; k_cache
    [blocks, kv_heads, head_size / x, block_size, x] and v_cache [blocks, kv_heads, head_size, block_size] hold those
    before them (the new ones are not read from there); b_loc int32 [B, max_blocks]; b_start_loc int32 [B + 1] row
    starts; b_seq_len int32 [B] lengths, cached and new tokens together.

    sliding_window: a query at p sees keys after p - sliding_window; None or 0 = all. sm_scale: default
    1 / sqrt(head_size). skip_decode: sequences of one new token are left alone. kv_cache_dtype, k_scale, v_scale: as
    in paged_attention_v1, of the cached tokens only. alibi_slopes, sinks, fp8_out_scale (output_scale): as in
    unified_attention. max_input_len: at least the most new tokens; max_seq_len is a hint. is_block_table_ptr must be
    False (ValueError).
    """
    if is_block_table_ptr:
        raise ValueError('is_block_table_ptr is not supported: give block numbers in b_loc')
    check_packed(q, k_cache, v_cache, k.shape[1], k_cache.shape[3])
    scale = q.shape[-1] ** -0.5 if sm_scale is None else sm_scale
    backend('prefix_prefill', q).context_attention_fwd(
        q, k, v, o, kv_cache_dtype, k_cache, v_cache, b_loc, b_start_loc, b_seq_len, max_input_len, k_scale, v_scale,
        alibi_slopes, (sliding_window or 0) - 1, scale, skip_decode, fp8_out_scale, sinks,
    )  # fmt: skip
