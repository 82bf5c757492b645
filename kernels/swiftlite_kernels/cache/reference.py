"""Paged cache writes in torch."""

import torch

from swiftlite_kernels.cache.dtypes import cache_view, fp8_dtype


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
    slots = slot_mapping
    key, value = key[: slots.shape[0]], value[: slots.shape[0]]
    if bool((slots < 0).any()):
        keep = slots >= 0
        slots, key, value = slots[keep], key[keep], value[keep]
    blocks, places = slots // block_size, slots % block_size
    stored = fp8_dtype(kv_cache_dtype)
    for new, cache, scale in ((key, key_cache, k_scale), (value, value_cache, v_scale)):
        if stored is None:
            cache[blocks, places] = new.to(cache.dtype)
        else:
            limit = torch.finfo(stored).max
            scaled = new.float() / scale.reshape(-1, 1)  # [heads or 1, 1]
            # index_put knows no fp8: move the bytes
            cache_view(cache, torch.uint8)[blocks, places] = scaled.clamp(-limit, limit).to(stored).view(torch.uint8)
