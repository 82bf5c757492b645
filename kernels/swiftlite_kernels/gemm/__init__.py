"""Products with a few rows, where reading the weight is all the time there is."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['MAX_ROWS', 'skinny_gemm']

MAX_ROWS = 16  # beyond it a library product is at least as fast


def skinny_gemm(
    out: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    norm_weight: torch.Tensor | None = None,
    epsilon: float = 1e-6,
    gated: bool = False,
) -> None:
    """out = x @ weight.T with the steps around it, for at most MAX_ROWS rows (ValueError beyond).

    x [M, K] and weight [N, K] of one dtype with contiguous rows; out [M, N], or [M, N / 2] when gated. norm_weight
    [K]: x is rms_norm(x, norm_weight, epsilon) first. bias [N] is added. gated: silu(first half of the columns) *
    second half. residual [M, columns of out], which may be out itself, is added last. All in fp32, rounded once at
    the end, so that results are nearer to the exact ones than those of the separate ops.
    """
    if x.shape[0] > MAX_ROWS:
        raise ValueError(f'skinny_gemm takes at most {MAX_ROWS} rows, got {x.shape[0]}')
    backend('gemm', x).skinny_gemm(out, x, weight, bias, residual, norm_weight, epsilon, gated)
