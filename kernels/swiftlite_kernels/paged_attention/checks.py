"""Arguments that do not fit each other."""

import torch

PARTITION = 512  # keys of a partition of paged_attention_v2


def check_packed(
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    num_kv_heads: int,
    block_size: int,
    vert_stride: int = 0,
) -> None:
    """ValueError for caches of another layout, or a block-sparse pattern."""
    if vert_stride > 1:
        raise ValueError('block-sparse attention is not supported; leave blocksparse_vert_stride at its default')
    heads, dim = query.shape[-2:]
    blocks, _, chunks, _, x = key_cache.shape
    keys, values = (blocks, num_kv_heads, chunks, block_size, x), (blocks, num_kv_heads, dim, block_size)
    if key_cache.shape != keys or chunks * x != dim or value_cache.shape != values or heads % num_kv_heads:
        raise ValueError(
            f'caches {tuple(key_cache.shape)} and {tuple(value_cache.shape)} do not fit {heads} query heads of {dim}, '
            f'{num_kv_heads} key heads and blocks of {block_size}'
        )


def check_buffers(
    query: torch.Tensor, exp_sum: torch.Tensor, max_logits: torch.Tensor, tmp_out: torch.Tensor, partitions: int
) -> None:
    """ValueError for partition buffers that are too small."""
    least = (*query.shape[:2], partitions)
    for name, x in (('exp_sum', exp_sum), ('max_logits', max_logits), ('tmp_out', tmp_out)):
        if any(a < b for a, b in zip(x.shape, least, strict=False)):
            raise ValueError(f'{name} must be at least {least}, got {tuple(x.shape)}')
