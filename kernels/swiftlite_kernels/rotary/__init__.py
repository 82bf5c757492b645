"""Rotary position embedding, alone and fused with the steps between a qkv projection and attention."""

import torch

from swiftlite_kernels.dispatch import backend
from swiftlite_kernels.paged_lora import Expansion

__all__ = ['rotary_and_cache', 'rotary_embedding']


def rotary_embedding(
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,
    rope_dim_offset: int = 0,
    inverse: bool = False,
) -> None:
    """Rotate query and key in place by their positions (Su et al. 2021).

    positions int64 [T] or [B, S]; query, key [*positions, heads * head_size] or [*positions, heads, head_size],
    strided views allowed; cos_sin_cache [max_position, rot_dim]: cosines in the first half, sines in the second.
    Dimensions [rope_dim_offset, rope_dim_offset + rot_dim) of each head turn; the rest is left alone. is_neox pairs
    dimension i with i + rot_dim/2, otherwise 2i with 2i+1. inverse turns the other way. Computed in fp32, rounded
    once.
    """
    backend('rotary', query).rotary_embedding(
        positions, query, key, head_size, cos_sin_cache, is_neox, rope_dim_offset, inverse
    )


def rotary_and_cache(
    qkv: torch.Tensor,
    bias: torch.Tensor | None,
    query_weight: torch.Tensor | None,
    key_weight: torch.Tensor | None,
    epsilon: float,
    positions: torch.Tensor,
    head_size: int,
    cos_sin_cache: torch.Tensor,
    is_neox: bool,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    lora: Expansion | None = None,
) -> None:
    """All that lies between the qkv projection and attention, in one launch where the rotation covers the whole head.

    qkv [T, (heads + 2 * kv_heads) * head_size]: query, key, value. In this order: add bias [width] or None (rounded
    to the dtype); rms_norm each query and key head with query_weight, key_weight [head_size] or None;
    rotary_embedding of query and key at positions int64 [T]; reshape_and_cache_flash of key and value. The
    results are left in their places in qkv too. Rounding is that of the separate ops. lora: what is to be added to qkv
    first (paged_lora.expand), with query, key and value as its slices; tokens in none of its tiles are undefined then,
    and must have no slot.
    """
    backend('rotary', qkv).rotary_and_cache(
        qkv, bias, query_weight, key_weight, epsilon, positions, head_size, cos_sin_cache, is_neox, key_cache,
        value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale, lora,
    )
