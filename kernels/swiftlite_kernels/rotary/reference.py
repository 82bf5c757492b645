"""Rotary position embedding in torch."""

import torch

from swiftlite_kernels.cache.reference import reshape_and_cache_flash
from swiftlite_kernels.norm.reference import rms_norm
from swiftlite_kernels.paged_lora import Expansion
from swiftlite_kernels.paged_lora.reference import expand


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
    rot_dim = cos_sin_cache.shape[-1]
    cos, sin = cos_sin_cache[positions].float().unsqueeze(-2).chunk(2, dim=-1)  # [*positions, 1, rot_dim/2]
    if inverse:
        sin = -sin
    for x in (query, key):
        if x is None:
            continue
        heads = x.unflatten(-1, (-1, head_size)) if x.dim() == positions.dim() + 1 else x
        part = heads[..., rope_dim_offset : rope_dim_offset + rot_dim]
        if is_neox:
            first, second = part[..., : rot_dim // 2], part[..., rot_dim // 2 :]
        else:
            first, second = part[..., 0::2], part[..., 1::2]
        a, b = first.float(), second.float()
        turned = a * cos - b * sin, b * cos + a * sin
        first.copy_(turned[0])
        second.copy_(turned[1])


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
    if lora is not None:
        expand(qkv, lora.shrunk, lora.b, lora.widths, lora.routing)
    if bias is not None:
        qkv += bias
    kv_heads = key_cache.shape[2]
    heads = qkv.unflatten(-1, (-1, head_size))  # [T, heads + 2 * kv_heads, head_size]
    query, key, value = heads.split([heads.shape[1] - 2 * kv_heads, kv_heads, kv_heads], dim=1)
    for x, weight in ((query, query_weight), (key, key_weight)):
        if weight is not None:
            rms_norm(x, x, weight, epsilon)
    rotary_embedding(positions, query, key, head_size, cos_sin_cache, is_neox)
    reshape_and_cache_flash(key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale)
