"""Names of cache dtypes."""

import torch

FP8 = {'fp8': torch.float8_e4m3fn, 'fp8_e4m3': torch.float8_e4m3fn, 'fp8_e5m2': torch.float8_e5m2}


def fp8_dtype(kv_cache_dtype: str) -> torch.dtype | None:
    """The torch dtype behind an fp8 cache name, None for 'auto'."""
    if kv_cache_dtype == 'auto':
        return None
    if kv_cache_dtype not in FP8:
        raise ValueError(f'kv_cache_dtype {kv_cache_dtype!r} is not one of auto, {", ".join(FP8)}')
    return FP8[kv_cache_dtype]


def cache_view(cache: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The cache's bytes seen as `dtype` (of the same size)."""
    return cache if cache.dtype == dtype else cache.view(dtype)
