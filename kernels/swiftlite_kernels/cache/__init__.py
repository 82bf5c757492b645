"""Writing keys and values into the paged cache, and moving its blocks."""

import torch

from swiftlite_kernels.cache.blocks import check_blocks
from swiftlite_kernels.dispatch import backend

__all__ = ['reshape_and_cache', 'reshape_and_cache_flash', 'swap_blocks']


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
    """As reshape_and_cache_flash, into the cache of paged_attention_v1.

    key_cache [blocks, kv_heads, head_size / x, block_size, x], x = 16 bytes of elements (any x that divides the head
    size will do); value_cache [blocks, kv_heads, head_size, block_size].
    """
    _, heads, dim = key.shape
    blocks, cache_heads, chunks, block_size, x = key_cache.shape
    if (cache_heads, chunks * x) != (heads, dim) or value_cache.shape != (blocks, heads, dim, block_size):
        raise ValueError(
            f'caches {tuple(key_cache.shape)} and {tuple(value_cache.shape)} do not fit keys {tuple(key.shape)}'
        )
    backend('cache', key).reshape_and_cache(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale
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
    """Store token t's key and value at block slot_mapping[t] // block_size, place slot_mapping[t] % block_size.

    key, value [T, kv_heads, head_size], strided; key_cache, value_cache [blocks, block_size, kv_heads, head_size]
    with any strides; slot_mapping int64 [≤ T], -1 = skip (tokens beyond it are padding). kv_cache_dtype: 'auto'
    stores the values as they are; 'fp8', 'fp8_e4m3' and 'fp8_e5m2' store value / scale saturated to the fp8 range, in
    a cache of that dtype or uint8. k_scale, v_scale: fp32 tensors, one number or one a head [kv_heads].
    """
    backend('cache', key).reshape_and_cache_flash(
        key, value, key_cache, value_cache, slot_mapping, kv_cache_dtype, k_scale, v_scale
    )


def swap_blocks(src: torch.Tensor, dst: torch.Tensor, block_size_in_bytes: int, block_mapping: torch.Tensor) -> None:
    """Copy block i of src to block j of dst for each row (i, j) of block_mapping, one after another.

    src, dst: any dtype, block b at byte b * block_size_in_bytes from the tensor's first element, on the CPU or a GPU
    each (copies from pinned memory do not wait). block_mapping int64 [n, 2] on the CPU. ValueError: a block that is
    not in src or dst.
    """
    check_blocks(src, dst, block_size_in_bytes, block_mapping)
    if block_mapping.shape[0]:
        backend('cache', src if src.is_cuda else dst).swap_blocks(src, dst, block_size_in_bytes, block_mapping)
