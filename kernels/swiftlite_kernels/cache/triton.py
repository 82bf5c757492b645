"""Paged cache writes in Triton: a program copies the keys and values of a few tokens."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.cache.dtypes import cache_view, fp8_dtype
from swiftlite_kernels.triton import begin, divide, early_launch, next_power_of_2

ELEMENTS = 1024  # a program's share


@triton.jit
def write(new, cache, scales, source, target, head, mask, FP8: tl.constexpr, PER_HEAD: tl.constexpr,
LIMIT: tl.constexpr):
    value = tl.load(new + source, mask, other=0.0)
    if FP8:
        scale = tl.load(scales + head, mask, other=1.0) if PER_HEAD else tl.load(scales)
        value = tl.clamp(divide(value.to(tl.float32), scale + tl.zeros(value.shape, tl.float32)), -LIMIT, LIMIT)
    tl.store(cache + target, value.to(cache.dtype.element_ty), mask)


@triton.jit(do_not_specialize=['tokens'])
def cache_kernel(
    key, value, key_cache, value_cache, slots, k_scale, v_scale, tokens,
    key_token, key_head, value_token, value_head,
    key_block, key_place, key_cache_head, value_block, value_place, value_cache_head,
    BLOCK_SIZE: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr, FP8: tl.constexpr,
    PER_HEAD: tl.constexpr, LIMIT: tl.constexpr, TOKENS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    token = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    head, dim = i // DIM, i % DIM
    slot = tl.load(slots + token, token < tokens, other=-1)
    mask = (slot >= 0) & (i < WIDTH)
    block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    write(
        key, key_cache, k_scale, token * key_token + head * key_head + dim,
        block * key_block + place * key_place + head * key_cache_head + dim, head, mask, FP8, PER_HEAD, LIMIT,
    )
    write(
        value, value_cache, v_scale, token * value_token + head * value_head + dim,
        block * value_block + place * value_place + head * value_cache_head + dim, head, mask, FP8, PER_HEAD, LIMIT,
    )


def reshape_and_cache_flash(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> None:
    tokens = slot_mapping.shape[0]
    if tokens == 0:
        return
    for x in (key, value, key_cache, value_cache):
        if x.stride(-1) != 1:
            raise ValueError(f'head elements must be contiguous, got strides {x.stride()}')
    stored = fp8_dtype(kv_cache_dtype)
    if stored is not None:
        key_cache, value_cache = cache_view(key_cache, stored), cache_view(value_cache, stored)
    _, heads, dim = key.shape
    block = next_power_of_2(heads * dim)
    share = max(1, ELEMENTS // block)
    cache_kernel[(triton.cdiv(tokens, share),)](
        key, value, key_cache, value_cache, slot_mapping, k_scale, v_scale, tokens,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        key_cache.stride(0), key_cache.stride(1), key_cache.stride(2),
        value_cache.stride(0), value_cache.stride(1), value_cache.stride(2),
        BLOCK_SIZE=key_cache.shape[1], WIDTH=heads * dim, DIM=dim, FP8=stored is not None,
        PER_HEAD=stored is not None and k_scale.numel() > 1,
        LIMIT=1.0 if stored is None else torch.finfo(stored).max, TOKENS=share, BLOCK=block, **early_launch(key),
        num_warps=4,
    )
