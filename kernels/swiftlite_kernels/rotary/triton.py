"""Rotary position embedding in Triton: a program a token turns all heads of query and key.

The fused kernel's program takes one key head of a token with its query heads and its value; with adapters to be
added first, a head of a tile of tokens (paged_lora).
"""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.cache.dtypes import cache_view, fp8_dtype
from swiftlite_kernels.cache.triton import reshape_and_cache_flash
from swiftlite_kernels.norm.triton import rms_norm
from swiftlite_kernels.paged_lora import Expansion
from swiftlite_kernels.paged_lora.triton import (
    RANKS,
    TILE_ROWS,
    add_rounded,
    expand,
    fits,
    parts_of,
    ranks_of,
    sum_parts,
)
from swiftlite_kernels.triton import begin, divide, early_launch, next_power_of_2


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
    EARLY: tl.constexpr,
):
    begin(EARLY)
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
        KEY_HEADS=0 if key is None else next_power_of_2(keys.shape[1]), **early_launch(query), num_warps=4,
    )


def tokens_and_heads(x: torch.Tensor, position_dims: int, head_size: int) -> torch.Tensor:
    """View [*positions, heads * head_size] or [*positions, heads, head_size] as [tokens, heads, head_size]."""
    if x.dim() == position_dims + 1:
        x = x.unflatten(-1, (-1, head_size))
    return x if position_dims == 1 else x.view(-1, *x.shape[-2:])


@triton.jit
def stored(x, scale, FP8: tl.constexpr, LIMIT: tl.constexpr):
    return tl.clamp(divide(x, scale + tl.zeros(x.shape, tl.float32)), -LIMIT, LIMIT) if FP8 else x


@triton.jit(do_not_specialize=['tokens'])
def fused_kernel(
    qkv, bias, query_weight, key_weight, positions, cache, key_cache, value_cache, slots, k_scale, v_scale, epsilon,
    heads, kv_heads, tokens, row_stride, cache_stride, key_block, key_place, key_head, value_block, value_place,
    value_head,
    GROUP: tl.constexpr, BIAS: tl.constexpr, QUERY_NORM: tl.constexpr, KEY_NORM: tl.constexpr, FP8: tl.constexpr,
    PER_HEAD: tl.constexpr, LIMIT: tl.constexpr, BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
    HALF_PAD: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (token, key head): rows are its GROUP query heads, the key, the value; columns half a head."""
    begin(EARLY)
    token, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, pair = tl.arange(0, ROWS), tl.arange(0, HALF_PAD)
    is_query, is_key, is_value = row < GROUP, row == GROUP, row == GROUP + 1
    head = tl.where(is_query, kv_head * GROUP + row, heads + kv_head + tl.where(is_value, kv_heads, 0))
    column = head[:, None] * (2 * HALF) + pair[None, :]
    mask = (row < GROUP + 2)[:, None] & (pair < HALF)[None, :]
    at = qkv + token * row_stride + column
    first, second = tl.load(at, mask, other=0.0), tl.load(at + HALF, mask, other=0.0)
    dtype = first.dtype
    a, b = first.to(tl.float32), second.to(tl.float32)
    if BIAS:
        a = (a + tl.load(bias + column, mask, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
        b = (b + tl.load(bias + column + HALF, mask, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    if QUERY_NORM or KEY_NORM:
        normed = (is_query & QUERY_NORM) | (is_key & KEY_NORM)
        factor = tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / (2 * HALF) + epsilon)
        weight_a, weight_b = tl.full([ROWS, HALF_PAD], 1.0, tl.float32), tl.full([ROWS, HALF_PAD], 1.0, tl.float32)
        if QUERY_NORM:
            wa = tl.load(query_weight + pair, pair < HALF, other=0.0).to(tl.float32)[None, :]
            wb = tl.load(query_weight + HALF + pair, pair < HALF, other=0.0).to(tl.float32)[None, :]
            weight_a, weight_b = tl.where(is_query[:, None], wa, weight_a), tl.where(is_query[:, None], wb, weight_b)
        if KEY_NORM:
            wa = tl.load(key_weight + pair, pair < HALF, other=0.0).to(tl.float32)[None, :]
            wb = tl.load(key_weight + HALF + pair, pair < HALF, other=0.0).to(tl.float32)[None, :]
            weight_a, weight_b = tl.where(is_key[:, None], wa, weight_a), tl.where(is_key[:, None], wb, weight_b)
        unit_a = (a * factor[:, None]).to(dtype).to(tl.float32) * weight_a
        unit_b = (b * factor[:, None]).to(dtype).to(tl.float32) * weight_b
        a = tl.where(normed[:, None], unit_a.to(dtype).to(tl.float32), a)
        b = tl.where(normed[:, None], unit_b.to(dtype).to(tl.float32), b)
    angles = cache + tl.load(positions + token).to(tl.int64) * cache_stride
    cos = tl.load(angles + pair, pair < HALF, other=0.0).to(tl.float32)[None, :]
    sin = tl.load(angles + HALF + pair, pair < HALF, other=0.0).to(tl.float32)[None, :]
    turned_a = tl.where(is_value[:, None], a, a * cos - b * sin).to(dtype)
    turned_b = tl.where(is_value[:, None], b, b * cos + a * sin).to(dtype)
    tl.store(at, turned_a, mask)
    tl.store(at + HALF, turned_b, mask)
    slot = tl.load(slots + token, token < tokens, other=-1)
    if slot >= 0:
        block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
        a, b = turned_a.to(tl.float32), turned_b.to(tl.float32)
        scale_k, scale_v = 1.0, 1.0
        if FP8:
            scale_k = tl.load(k_scale + (kv_head if PER_HEAD else 0))
            scale_v = tl.load(v_scale + (kv_head if PER_HEAD else 0))
        k_at = key_cache + block * key_block + place * key_place + kv_head * key_head + pair[None, :] + row[:, None] * 0
        v_at = value_cache + block * value_block + place * value_place + kv_head * value_head
        v_at = v_at + pair[None, :] + row[:, None] * 0
        k_mask, v_mask = mask & is_key[:, None], mask & is_value[:, None]
        element = key_cache.dtype.element_ty
        tl.store(k_at, stored(a, scale_k, FP8, LIMIT).to(element), k_mask)
        tl.store(k_at + HALF, stored(b, scale_k, FP8, LIMIT).to(element), k_mask)
        tl.store(v_at, stored(a, scale_v, FP8, LIMIT).to(element), v_mask)
        tl.store(v_at + HALF, stored(b, scale_v, FP8, LIMIT).to(element), v_mask)


@triton.jit(do_not_specialize=['slot_count', 'tokens', 'splits'])
def adapter_kernel(
    qkv, bias, query_weight, key_weight, positions, cache, key_cache, value_cache, slots, k_scale, v_scale, epsilon,
    heads, kv_heads, slot_count, row_stride, cache_stride, key_block, key_place, key_head, value_block, value_place,
    value_head, part, b, adapters, starts, counts, pool_rows, ranks, tokens, splits, b_row, table_row, part_row,
    BIAS: tl.constexpr, QUERY_NORM: tl.constexpr, KEY_NORM: tl.constexpr, FP8: tl.constexpr, PER_HEAD: tl.constexpr,
    LIMIT: tl.constexpr, BLOCK_SIZE: tl.constexpr, HALF: tl.constexpr, HALF_PAD: tl.constexpr,
    TILE: tl.constexpr, RANKS: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile, head of query, key or value): rows are tokens, columns half a head."""
    tile, head = tl.program_id(0), tl.program_id(1)
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    if (count == 0) & (tile > 0):
        return
    rank = tl.load(ranks + adapter)
    is_query, is_value = head < heads, head >= heads + kv_heads
    s = tl.where(is_query, 0, tl.where(is_value, 2, 1))
    kv_head = tl.where(is_query, 0, head - heads - tl.where(is_value, kv_heads, 0))
    row, pair = tl.arange(0, TILE), tl.arange(0, HALF_PAD)
    live, inside = row < count, pair < HALF
    column = head * (2 * HALF) + pair
    table, columns = pool_rows + adapter * table_row, b + column[None, :]
    b_first = ranks_of(columns, inside, table, 0, table_row, rank, b_row, RANKS)  # waits for nobody
    b_second = ranks_of(columns + HALF, inside, table, 0, table_row, rank, b_row, RANKS)
    begin(EARLY)
    token, part_size = (start + row).to(tl.int64), tl.cast(tokens, tl.int64) * part_row
    mask = live[:, None] & inside[None, :]
    at = qkv + token[:, None] * row_stride + column[None, :]
    first = tl.load(at, mask, other=0.0)
    second = tl.load(at + HALF, mask, other=0.0)
    half = sum_parts(part + token * part_row + s * RANKS, live, 0, rank, part_size, splits, TILE, RANKS, PARTS)
    half = half.to(b_first.dtype)
    first = add_rounded(first, tl.dot(half, b_first, input_precision=PRECISION))
    second = add_rounded(second, tl.dot(half, b_second, input_precision=PRECISION))
    dtype = first.dtype
    x, y = first.to(tl.float32), second.to(tl.float32)
    if BIAS:
        x = (x + tl.load(bias + column, inside, other=0.0).to(tl.float32)[None, :]).to(dtype).to(tl.float32)
        y = (y + tl.load(bias + column + HALF, inside, other=0.0).to(tl.float32)[None, :]).to(dtype).to(tl.float32)
    if QUERY_NORM or KEY_NORM:
        normed = (is_query & QUERY_NORM) | (is_query == 0) & (is_value == 0) & KEY_NORM
        if normed:
            weight_x, weight_y = tl.full([HALF_PAD], 1.0, tl.float32), tl.full([HALF_PAD], 1.0, tl.float32)
            if QUERY_NORM:
                weight_x = tl.load(query_weight + pair, inside & is_query, other=0.0).to(tl.float32)
                weight_y = tl.load(query_weight + HALF + pair, inside & is_query, other=0.0).to(tl.float32)
            if KEY_NORM:
                key_x = tl.load(key_weight + pair, inside, other=0.0).to(tl.float32)
                key_y = tl.load(key_weight + HALF + pair, inside, other=0.0).to(tl.float32)
                weight_x, weight_y = tl.where(is_query, weight_x, key_x), tl.where(is_query, weight_y, key_y)
            factor = tl.rsqrt((tl.sum(x * x, 1) + tl.sum(y * y, 1)) / (2 * HALF) + epsilon)[:, None]
            x = ((x * factor).to(dtype).to(tl.float32) * weight_x[None, :]).to(dtype).to(tl.float32)
            y = ((y * factor).to(dtype).to(tl.float32) * weight_y[None, :]).to(dtype).to(tl.float32)
    turned_x, turned_y = x.to(dtype), y.to(dtype)
    if is_value == 0:
        angles = cache + tl.load(positions + token, live, other=0).to(tl.int64)[:, None] * cache_stride + pair[None, :]
        cos = tl.load(angles, mask, other=0.0).to(tl.float32)
        sin = tl.load(angles + HALF, mask, other=0.0).to(tl.float32)
        turned_x, turned_y = (x * cos - y * sin).to(dtype), (y * cos + x * sin).to(dtype)
    tl.store(at, turned_x, mask)
    tl.store(at + HALF, turned_y, mask)
    if is_query == 0:
        slot = tl.load(slots + token, live & (token < slot_count), other=-1)
        block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
        to_cache = key_cache + block * key_block + place * key_place + kv_head * key_head
        scale = 1.0
        if FP8:
            scale = tl.load(k_scale + (kv_head if PER_HEAD else 0))
        if is_value:
            to_cache = value_cache + block * value_block + place * value_place + kv_head * value_head
            if FP8:
                scale = tl.load(v_scale + (kv_head if PER_HEAD else 0))
        to_cache = to_cache[:, None] + pair[None, :]
        mask = mask & (slot >= 0)[:, None]
        element = key_cache.dtype.element_ty
        tl.store(to_cache, stored(turned_x.to(tl.float32), scale, FP8, LIMIT).to(element), mask)
        tl.store(to_cache + HALF, stored(turned_y.to(tl.float32), scale, FP8, LIMIT).to(element), mask)


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
    tokens, width = qkv.shape
    if tokens == 0:
        return
    kv_heads = key_cache.shape[2]
    heads = width // head_size - 2 * kv_heads
    plain = is_neox and cos_sin_cache.shape[-1] == head_size
    if lora is not None and not (plain and fits(lora)):
        expand(qkv, lora.shrunk, lora.b, lora.widths, lora.routing)
        lora = None
    if not plain:
        if bias is not None:
            qkv += bias
        query, key, value = qkv.unflatten(-1, (-1, head_size)).split([heads, kv_heads, kv_heads], dim=1)
        for x, weight in ((query, query_weight), (key, key_weight)):
            if weight is not None:
                rms_norm(x, x, weight, epsilon)
        rotary_embedding(positions, query, key, head_size, cos_sin_cache, is_neox)
        reshape_and_cache_flash(key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale)
        return
    fp8 = fp8_dtype(kv_cache_dtype)
    if fp8 is not None:
        key_cache, value_cache = cache_view(key_cache, fp8), cache_view(value_cache, fp8)
    args = (
        qkv, bias, query_weight, key_weight, positions, cos_sin_cache, key_cache, value_cache, slot_mapping, k_scale,
        v_scale, epsilon, heads, kv_heads, slot_mapping.shape[0], qkv.stride(0), cos_sin_cache.stride(0),
        *key_cache.stride()[:3], *value_cache.stride()[:3],
    )
    options = {
        'BIAS': bias is not None, 'QUERY_NORM': query_weight is not None, 'KEY_NORM': key_weight is not None,
        'FP8': fp8 is not None, 'PER_HEAD': fp8 is not None and k_scale.numel() > 1,
        'LIMIT': 1.0 if fp8 is None else torch.finfo(fp8).max, 'BLOCK_SIZE': key_cache.shape[1],
        'HALF': head_size // 2, 'HALF_PAD': next_power_of_2(head_size // 2),
    }
    if lora is not None:
        at, shrunk = lora.routing, lora.shrunk
        adapter_kernel[(at.adapters.shape[0], heads + 2 * kv_heads)](
            *args, shrunk, lora.b, at.adapters, at.starts, at.counts, at.pool_rows, at.ranks, tokens, shrunk.shape[0],
            lora.b.stride(0), at.pool_rows.stride(0), shrunk.stride(1), **options, TILE=TILE_ROWS, RANKS=RANKS,
            PARTS=parts_of(shrunk), PRECISION='ieee' if qkv.dtype == torch.float32 else 'tf32', **early_launch(qkv),
            num_warps=4,
        )
        return
    group = heads // kv_heads
    fused_kernel[(tokens, kv_heads)](
        *args, GROUP=group, ROWS=next_power_of_2(group + 2), **options, **early_launch(qkv),
        num_warps=4 if group > 2 else 1,
    )
