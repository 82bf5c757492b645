"""Cross entropy of rows of logits, with the gradient written over them."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['cross_entropy']


def cross_entropy(
    losses: torch.Tensor,
    correct: torch.Tensor,
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None = None,
    softcap: float = 0.0,
    ignore_index: int = -100,
    gradient: bool = True,
) -> None:
    """losses fp32 [N] = -log softmax(logits)[targets] * weights; correct bool [N]: the target has the largest logit.

    logits [N, V] (rows may be strided), with gradient overwritten by d losses / d logits in their dtype; targets
    int64 [N], where ignore_index gives loss 0, gradient 0 and not correct; weights fp32 [N] or None for ones. softcap
    above 0 replaces logits by softcap * tanh(logits / softcap) first (Gemma 2). Of equal logits the lowest id is the
    largest. Computed in fp32; the maximum and the sum are found in one pass (Milakov & Gimelshein 2018).
    """
    backend('cross_entropy', logits).cross_entropy(
        losses, correct, logits, targets, weights, softcap, ignore_index, gradient
    )
