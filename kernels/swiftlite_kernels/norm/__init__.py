"""RMSNorm, alone and fused with the residual addition."""

import torch

from swiftlite_kernels.dispatch import backend
from swiftlite_kernels.paged_lora import Expansion

__all__ = ['fused_add_rms_norm', 'rms_norm']


def rms_norm(out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> None:
    """out = input / sqrt(mean(input²) + epsilon) * weight over the last dimension (Zhang & Sennrich 2019).

    out, input [..., hidden] of one dtype (rows may be strided); weight [hidden] or None for ones. The normalised
    value is computed in fp32 and rounded to the dtype before the multiplication, as Llama and Qwen do.
    """
    backend('norm', input).rms_norm(out, input, weight, epsilon)


def fused_add_rms_norm(
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor | None,
    epsilon: float,
    lora: Expansion | None = None,
) -> None:
    """In place: residual += input (rounded to its dtype), then input = rms_norm(residual).

    input, residual [..., hidden] of one dtype; weight [hidden] or None. lora: what is to be added to input [T, hidden]
    first (paged_lora.expand); rows in none of its tiles are undefined then.
    """
    backend('norm', input).fused_add_rms_norm(input, residual, weight, epsilon, lora)
