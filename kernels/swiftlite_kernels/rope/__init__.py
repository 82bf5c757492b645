"""Rotary position embedding of a training batch: query and key in one launch, with given cosines and sines."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['rotate_query_key']


def rotate_query_key(
    query_out: torch.Tensor,
    key_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    inverse: bool = False,
) -> None:
    """Turn dimension i with i + head_size / 2 (Su et al. 2021); inverse turns back, which is the gradient.

    query [B, S, heads, head_size], key [B, S, kv_heads, head_size] and their outputs of one dtype, strided views
    whose heads have no gaps; outputs may be the inputs. cos, sin [B or 1, S, head_size] as transformers makes them:
    the second half repeats the first. Computed in fp32, rounded once.
    """
    backend('rope', query).rotate_query_key(query_out, key_out, query, key, cos, sin, inverse)
