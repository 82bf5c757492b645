"""LoRA's narrow products with dropout in torch."""

import torch

from swiftlite_kernels.lora_dropout import STEPS, threshold

WORD = 0xFFFFFFFF


def mix(x: torch.Tensor) -> torch.Tensor:
    """A permutation of 32 bits, held in int64, each output bit of which depends on all input bits."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & WORD
    x = ((x ^ (x >> 15)) * 0xD35A2D97) & WORD
    return x ^ (x >> 15)


def kept(rows: int, columns: int, p: float, seed: int, device: torch.device) -> torch.Tensor:
    """Bool [rows, columns]: what dropout leaves."""
    row = mix(mix(torch.arange(rows, device=device)) ^ (seed & WORD))
    column = mix(mix(torch.arange(columns, device=device)) ^ ((seed >> 32) & WORD))
    return mix(row[:, None] ^ column[None, :]) >= threshold(p)


def dropped(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    scale = STEPS / (STEPS - threshold(p))
    return (x * scale).where(kept(x.shape[0], x.shape[1], p, seed, x.device), 0)


def dropout_shrink(x: torch.Tensor, a: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    return dropped(x, p, seed) @ a.T


def dropout_shrink_backward(
    grad: torch.Tensor,
    x: torch.Tensor | None,
    a: torch.Tensor,
    p: float,
    seed: int,
    grad_x: torch.Tensor | None,
) -> torch.Tensor | None:
    if grad_x is not None:
        grad_x += dropped(grad @ a, p, seed)
    if x is None:
        return None
    product = grad.T @ dropped(x, p, seed)
    return product if x.dtype == torch.float64 else product.float()
