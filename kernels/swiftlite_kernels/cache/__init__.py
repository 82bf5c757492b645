"""Writing keys and values into the paged cache."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['reshape_and_cache_flash']


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
