"""The narrow products of a LoRA whose input is dropped out (Hu et al., arXiv 2106.09685), without keeping a mask.

Whether an element stays is a hash of (seed, row, column), so the backward pass draws the same mask again, and every
device the same. What stays is divided by 1 - p. The hash mixes 32 bits as lowbias32 does (Wellons, hash-prospector).
"""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['dropout_shrink', 'dropout_shrink_backward']

STEPS = 1 << 32  # p is rounded to a multiple of 1 / STEPS


def threshold(p: float) -> int:
    """Hashes below it are dropped."""
    return min(round(p * STEPS), STEPS - 1)


def dropout_shrink(x: torch.Tensor, a: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """dropout(x, p) @ a.T: x [T, in] (rows may be strided), a [rank, in] contiguous, of one dtype; [T, rank] of it."""
    return backend('lora_dropout', x).dropout_shrink(x, a, p, seed)


def dropout_shrink_backward(
    grad: torch.Tensor,
    x: torch.Tensor | None,
    a: torch.Tensor,
    p: float,
    seed: int,
    grad_x: torch.Tensor | None,
) -> torch.Tensor | None:
    """Gradients for grad [T, rank]: that of `a` is returned in fp32 [rank, in], that of x added to grad_x [T, in].

    Each is left out where x or grad_x is None (one of them is given); with both, they take one pass.
    """
    return backend('lora_dropout', grad).dropout_shrink_backward(grad, x, a, p, seed, grad_x)
