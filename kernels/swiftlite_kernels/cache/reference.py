"""Paged cache writes in torch."""

import torch

from swiftlite_kernels.cache.blocks import as_blocks, runs
from swiftlite_kernels.cache.dtypes import cache_view, fp8_dtype


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
    x, block_size = key_cache.shape[4], key_cache.shape[3]
    stored = fp8_dtype(kv_cache_dtype)
    key, value, slots = used(key, value, slot_mapping)
    blocks, places = slots // block_size, slots % block_size
    key, key_cache = encode(key, key_cache, stored, k_scale)
    value, value_cache = encode(value, value_cache, stored, v_scale)
    key_cache[blocks, :, :, places] = key.unflatten(-1, (-1, x))
    value_cache[blocks, :, :, places] = value


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
    block_size = key_cache.shape[1]
    stored = fp8_dtype(kv_cache_dtype)
    key, value, slots = used(key, value, slot_mapping)
    blocks, places = slots // block_size, slots % block_size
    for x, cache, scale in ((key, key_cache, k_scale), (value, value_cache, v_scale)):
        x, cache = encode(x, cache, stored, scale)
        cache[blocks, places] = x


def used(
    key: torch.Tensor, value: torch.Tensor, slots: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys, values and slots of the tokens that are stored."""
    key, value = key[: slots.shape[0]], value[: slots.shape[0]]
    if bool((slots < 0).any()):
        keep = slots >= 0
        slots, key, value = slots[keep], key[keep], value[keep]
    return key, value, slots


def encode(
    x: torch.Tensor, cache: torch.Tensor, stored: torch.dtype | None, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys or values [T, heads, d] as the cache holds them, and the cache seen so that indexing can write them."""
    if stored is None:
        return x.to(cache.dtype), cache
    limit = torch.finfo(stored).max
    scaled = x.float() / scale.reshape(-1, 1)  # [heads or 1, 1]
    # index_put knows no fp8: move the bytes
    return scaled.clamp(-limit, limit).to(stored).view(torch.uint8), cache_view(cache, torch.uint8)


def swap_blocks(src: torch.Tensor, dst: torch.Tensor, block_size_in_bytes: int, block_mapping: torch.Tensor) -> None:
    source, target = as_blocks(src, block_size_in_bytes), as_blocks(dst, block_size_in_bytes)
    same = src.untyped_storage().data_ptr() == dst.untyped_storage().data_ptr()
    for first, to, count in [(i, j, 1) for i, j in block_mapping.tolist()] if same else runs(block_mapping):
        target[to : to + count].copy_(source[first : first + count], non_blocking=True)
