"""A weight times one row: what a single request spends its time on."""

import torch

from swiftlite_kernels.dispatch import backend
from swiftlite_kernels.paged_lora import Expansion

__all__ = ['gemv']


def gemv(
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    epsilon: float = 1e-6,
    gated: bool = False,
    lora: Expansion | None = None,
) -> None:
    """out = x @ weight.T for a single row, with the steps around it.

    x [1, K] and weight [N, K] of one dtype with contiguous rows; out [1, N], or [1, N / 2] when gated. norm_weight
    [K]: x is rms_norm(x, norm_weight, epsilon) first. bias [N] is added. gated: silu(first half of the columns) *
    second half. residual, of out's shape and possibly out itself, is added last. lora: what its adapter adds to the
    product, in up to 3 slices (of a gated weight its two halves); `shrunk` comes from paged_lora.shrink of this x, with
    norm_weight if there is one, launched after x was written. All in fp32, rounded once at the end, so that results are
    nearer to the exact ones than those of the separate ops. On a GPU the weight may be read before the previous kernel
    has ended: it must not be what that kernel writes. ValueError for more than one row.
    """
    if x.shape[0] != 1:
        raise ValueError(f'gemv takes one row, got {x.shape[0]}')
    backend('gemv', x).gemv(out, x, weight, bias, residual, norm_weight, epsilon, gated, lora)
