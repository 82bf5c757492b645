"""RMSNorm in torch."""

import torch

from swiftlite_kernels.paged_lora import Expansion
from swiftlite_kernels.paged_lora.reference import expand


def rms_norm(out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> None:
    x = input if input.dtype == torch.float64 else input.float()
    x = (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)).to(input.dtype)
    out.copy_(x if weight is None else x * weight)


def fused_add_rms_norm(
    input: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float,
    lora: Expansion | None = None,
) -> None:
    if lora is not None:
        expand(input, lora.shrunk, lora.b, lora.widths, lora.routing)
    residual.add_(input)
    rms_norm(input, residual, weight, epsilon)
