"""Paged cache writes in Triton: a program copies the keys and values of a few tokens, or a part of a block."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.cache import reference
from swiftlite_kernels.cache.blocks import as_blocks
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
    key_block, key_place, key_cache_head, key_chunk, value_block, value_place, value_cache_head, value_dim,
    BLOCK_SIZE: tl.constexpr, PACK: tl.constexpr, WIDTH: tl.constexpr, DIM: tl.constexpr, FP8: tl.constexpr,
    PER_HEAD: tl.constexpr, LIMIT: tl.constexpr, TOKENS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    """PACK elements of a key lie together in the cache, key_chunk apart from the next; of a value value_dim apart."""
    begin(EARLY)
    token = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)[:, None]
    i = tl.arange(0, BLOCK)[None, :]
    head, dim = i // DIM, i % DIM
    slot = tl.load(slots + token, token < tokens, other=-1)
    mask = (slot >= 0) & (i < WIDTH)
    block, place = slot // BLOCK_SIZE, slot % BLOCK_SIZE
    write(
        key, key_cache, k_scale, token * key_token + head * key_head + dim,
        block * key_block + place * key_place + head * key_cache_head + dim // PACK * key_chunk + dim % PACK,
        head, mask, FP8, PER_HEAD, LIMIT,
    )
    write(
        value, value_cache, v_scale, token * value_token + head * value_head + dim,
        block * value_block + place * value_place + head * value_cache_head + dim * value_dim,
        head, mask, FP8, PER_HEAD, LIMIT,
    )


def reshape_and_cache(
    key: torch.Tensor,
    value: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> None:
    if key_cache.stride(4) != 1:
        raise ValueError(f'key_cache: the last dimension must be contiguous, got strides {key_cache.stride()}')
    k_block, k_head, k_chunk, k_place, _ = key_cache.stride()
    v_block, v_head, v_dim, v_place = value_cache.stride()
    store(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale,
        (k_block, k_place, k_head, k_chunk, v_block, v_place, v_head, v_dim), key_cache.shape[3], key_cache.shape[4],
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
    for x in (key_cache, value_cache):
        if x.stride(-1) != 1:
            raise ValueError(f'head elements must be contiguous, got strides {x.stride()}')
    store(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale,
        (*key_cache.stride()[:3], 0, *value_cache.stride()), key_cache.shape[1], key.shape[2],
    )


def store(
    key: torch.Tensor, value: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, slots: torch.Tensor,
    kv_cache_dtype: str, k_scale: torch.Tensor, v_scale: torch.Tensor, strides: tuple[int, ...], block_size: int,
    pack: int,
) -> None:
    tokens = slots.shape[0]
    if tokens == 0:
        return
    for x in (key, value):
        if x.stride(-1) != 1:
            raise ValueError(f'head elements must be contiguous, got strides {x.stride()}')
    stored = fp8_dtype(kv_cache_dtype)
    if stored is not None:
        key_cache, value_cache = cache_view(key_cache, stored), cache_view(value_cache, stored)
    _, heads, dim = key.shape
    block = next_power_of_2(heads * dim)
    share = max(1, ELEMENTS // block)
    cache_kernel[(triton.cdiv(tokens, share),)](
        key, value, key_cache, value_cache, slots, k_scale, v_scale, tokens,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1), *strides,
        BLOCK_SIZE=block_size, PACK=pack, WIDTH=heads * dim, DIM=dim, FP8=stored is not None,
        PER_HEAD=stored is not None and k_scale.numel() > 1,
        LIMIT=1.0 if stored is None else torch.finfo(stored).max, TOKENS=share, BLOCK=block, **early_launch(key),
        num_warps=4,
    )


@triton.jit
def swap_kernel(source, target, mapping, words, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """Program (pair, part of a block)."""
    begin(EARLY)
    pair = mapping + 2 * tl.program_id(0)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(source + tl.load(pair) * words + i, i < words)
    tl.store(target + tl.load(pair + 1) * words + i, x, i < words)


def swap_blocks(
    src: torch.Tensor, dst: torch.Tensor, block_size_in_bytes: int, block_mapping: torch.Tensor
) -> None:
    apart = src.device == dst.device and src.untyped_storage().data_ptr() != dst.untyped_storage().data_ptr()
    if not apart or block_mapping[:, 1].unique().numel() < block_mapping.shape[0]:  # the order matters
        reference.swap_blocks(src, dst, block_size_in_bytes, block_mapping)
        return
    source, target = as_blocks(src, block_size_in_bytes), as_blocks(dst, block_size_in_bytes)
    # the widest word that blocks and both first elements are multiples of
    for word in (torch.int64, torch.int32, torch.int16, torch.uint8):
        size = word.itemsize
        if (block_size_in_bytes | source.data_ptr() | target.data_ptr()) % size == 0:
            break
    words = block_size_in_bytes // size
    swap_kernel[(block_mapping.shape[0], triton.cdiv(words, ELEMENTS))](
        source.view(word), target.view(word), block_mapping.to(src.device, non_blocking=True), words, BLOCK=ELEMENTS,
        **early_launch(src), num_warps=4,
    )
