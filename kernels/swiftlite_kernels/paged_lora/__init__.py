"""Adapters of mixed ranks in pages of one pool, beside a linear layer (Sheng et al. 2024, S-LoRA).

The product x Aᵀ B of an adapter is computed in two halves: `shrink`, which needs the layer's input only, and an
expansion into the layer's output. The latter is a launch of its own, or part of the kernel that reads the output next.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['Expansion', 'LoRARouting', 'expand', 'expand_silu_and_mul', 'shrink']


@dataclass(frozen=True)
class LoRARouting:
    """Which adapter a step's tokens go to: N tiles of up to `tile` neighbouring tokens of one adapter.

    Every token is in a tile, those without an adapter in tiles of one of rank 0; unused tiles have count 0. All int32,
    on the device.
    """

    adapters: torch.Tensor  # [N], row of pool_rows
    starts: torch.Tensor  # [N], first token
    counts: torch.Tensor  # [N]
    pool_rows: torch.Tensor  # [L, R]: rows of the pool that hold an adapter's ranks
    ranks: torch.Tensor  # [L], at most R
    tile: int
    order: torch.Tensor | None = None  # [T]: tiles are runs of it, instead of tokens that lie together


@dataclass(frozen=True)
class Expansion:
    """What is left to be added to a layer's output; tokens must lie together (a routing without an order)."""

    shrunk: torch.Tensor  # from `shrink`
    b: torch.Tensor  # [P, ΣN], rows contiguous
    widths: Sequence[int]  # N of each slice
    routing: LoRARouting

    def __post_init__(self) -> None:
        if self.routing.order is not None:
            raise ValueError('an expansion in another kernel takes tokens that lie together, not an order')


def shrink(
    x: torch.Tensor, a: torch.Tensor, routing: LoRARouting, norm_weight: torch.Tensor | None = None
) -> torch.Tensor:
    """x[t] A_sᵀ with A of t's adapter, in parts to be added up: fp32 [parts, T, S * R16].

    x [T, K], rows contiguous; a [S, P, K], a pool of P ranks; R16: R of the routing, up to a multiple of 16. Ranks that
    an adapter does not have are left unwritten. norm_weight [K]: x is multiplied by it first.
    """
    return backend('paged_lora', x).shrink(x, a, routing, norm_weight)


def expand(
    y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, widths: Sequence[int], routing: LoRARouting
) -> None:
    """y[t, columns of slice s] += shrunk B_s for every token with an adapter; others are left alone.

    y [T, ΣN], rows contiguous; shrunk from `shrink`; b [P, ΣN], of any strides, carries the scaling; widths: N of each
    of up to 4 slices. The product of rank r is rounded to the dtype, as two linear layers do.
    """
    backend('paged_lora', y).expand(y, shrunk, b, widths, routing)


def expand_silu_and_mul(
    out: torch.Tensor, y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, routing: LoRARouting
) -> None:
    """`expand` into y [T, 2N], then silu(first half) * second half into out [T, N]: y is read once and left as it is.

    Rounded as the two steps would round. ValueError for a routing with an order.
    """
    if routing.order is not None:
        raise ValueError('expand_silu_and_mul takes tokens that lie together, not an order')
    backend('paged_lora', y).expand_silu_and_mul(out, y, shrunk, b, routing)

