"""Adapters of mixed ranks in pages of one pool, added to a linear layer's output (Sheng et al. 2024, S-LoRA)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['LoRARouting', 'add_lora']


@dataclass(frozen=True)
class LoRARouting:
    """Which adapter a step's tokens go to: N tiles of up to `tile` neighbouring tokens of one adapter.

    Tokens in no tile have no adapter; unused tiles have count 0. All int32, on the device.
    """

    adapters: torch.Tensor  # [N], row of pool_rows
    starts: torch.Tensor  # [N], first token
    counts: torch.Tensor  # [N]
    pool_rows: torch.Tensor  # [L, R]: rows of the pool that hold an adapter's ranks
    ranks: torch.Tensor  # [L], at most R
    tile: int


def add_lora(
    y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, widths: Sequence[int], routing: LoRARouting
) -> None:
    """y[t, columns of slice s] += (x[t] A_sᵀ) B_s, with A, B of t's adapter; others are left alone.

    y [T, ΣN] and x [T, K], rows contiguous; a [S, P, K] and b [P, ΣN]: a pool of P ranks, b carries the scaling;
    widths: N of each of up to 4 slices. The product of rank r is rounded to the dtype, as two linear layers do.
    """
    backend('paged_lora', y).add_lora(y, x, a, b, widths, routing)
