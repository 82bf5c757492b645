"""Rotary position embedding in Triton: a program a token turns all heads of query and key."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import next_power_of_2


@triton.jit
def turn(base, heads, head_stride, cos, sin, half, NEOX: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    """Rotate [heads, 2 * half] at base in place."""
    head = tl.arange(0, HEADS)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    mask = (head < heads) & (pair < half)
    if NEOX:
        at_a = base + head * head_stride + pair
        at_b = at_a + half
    else:
        at_a = base + head * head_stride + 2 * pair
        at_b = at_a + 1
    a = tl.load(at_a, mask, other=0.0)
    b = tl.load(at_b, mask, other=0.0)
    wide_a, wide_b = a.to(tl.float32), b.to(tl.float32)
    tl.store(at_a, (wide_a * cos - wide_b * sin).to(a.dtype), mask)
    tl.store(at_b, (wide_b * cos + wide_a * sin).to(b.dtype), mask)


@triton.jit
def rotary_kernel(
    positions, query, key, cache, cache_stride, half,
    query_stride, query_head, query_heads, key_stride, key_head, key_heads,
    INVERSE: tl.constexpr, NEOX: tl.constexpr, HALF: tl.constexpr, QUERY_HEADS: tl.constexpr, KEY_HEADS: tl.constexpr,
):
    token = tl.program_id(0).to(tl.int64)
    row = cache + tl.load(positions + token).to(tl.int64) * cache_stride
    pair = tl.arange(0, HALF)
    cos = tl.load(row + pair, pair < half, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(row + half + pair, pair < half, other=0.0).to(tl.float32)[None, :]
    if INVERSE:
        sin = -sin
    turn(query + token * query_stride, query_heads, query_head, cos, sin, half, NEOX, QUERY_HEADS, HALF)
    if KEY_HEADS > 0:
        turn(key + token * key_stride, key_heads, key_head, cos, sin, half, NEOX, KEY_HEADS, HALF)


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
    if positions.dim() == 2 and any(x is not None and x.stride(0) != x.stride(1) * x.shape[1] for x in (query, key)):
        for b in range(positions.shape[0]):  # rows of a batch that is no evenly spaced list of tokens
            rotary_embedding(
                positions[b], query[b], None if key is None else key[b], head_size, cos_sin_cache, is_neox,
                rope_dim_offset, inverse,
            )
        return
    if positions.numel() == 0:
        return
    query = tokens_and_heads(query, positions.dim(), head_size)
    keys = query if key is None else tokens_and_heads(key, positions.dim(), head_size)
    rotary_kernel[(positions.numel(),)](
        positions.contiguous(), query[..., rope_dim_offset:], keys[..., rope_dim_offset:], cos_sin_cache,
        cos_sin_cache.stride(0), rot_dim // 2,
        query.stride(0), query.stride(1), query.shape[1], keys.stride(0), keys.stride(1), keys.shape[1],
        INVERSE=inverse, NEOX=is_neox, HALF=next_power_of_2(rot_dim // 2), QUERY_HEADS=next_power_of_2(query.shape[1]),
        KEY_HEADS=0 if key is None else next_power_of_2(keys.shape[1]), num_warps=4,
    )


def tokens_and_heads(x: torch.Tensor, position_dims: int, head_size: int) -> torch.Tensor:
    """View [*positions, heads * head_size] or [*positions, heads, head_size] as [tokens, heads, head_size]."""
    if x.dim() == position_dims + 1:
        x = x.unflatten(-1, (-1, head_size))
    return x if position_dims == 1 else x.view(-1, *x.shape[-2:])
