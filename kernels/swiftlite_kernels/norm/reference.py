"""RMSNorm in torch."""

import torch


def rms_norm(out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> None:
    x = input if input.dtype == torch.float64 else input.float()
    x = (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)).to(input.dtype)
    out.copy_(x if weight is None else x * weight)


def fused_add_rms_norm(
    input: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float
) -> None:
    residual.add_(input)
    rms_norm(input, residual, weight, epsilon)
