"""Rotary position embedding."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['rotary_embedding']


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
    """Rotate query and key in place by their positions (Su et al. 2021).

    positions int64 [T] or [B, S]; query, key [*positions, heads * head_size] or [*positions, heads, head_size],
    strided views allowed; cos_sin_cache [max_position, rot_dim]: cosines in the first half, sines in the second.
    Dimensions [rope_dim_offset, rope_dim_offset + rot_dim) of each head turn; the rest is left alone. is_neox pairs
    dimension i with i + rot_dim/2, otherwise 2i with 2i+1. inverse turns the other way. Computed in fp32, rounded
    once.
    """
    backend('rotary', query).rotary_embedding(
        positions, query, key, head_size, cos_sin_cache, is_neox, rope_dim_offset, inverse
    )
