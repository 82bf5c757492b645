"""Root-mean-square normalisation (Zhang & Sennrich 2019, arXiv 1910.07467)."""

from __future__ import annotations

import torch
from torch import nn

from swiftlite_kernels.norm import fused_add_rms_norm, rms_norm
from swiftlite_kernels.paged_lora import Expansion

from .target import Target


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, computed in fp32."""

    def __init__(self, name: str, size: int, eps: float, dtype: torch.dtype, device: torch.device | str):
        super().__init__()
        self.name, self.eps = name, eps
        self.weight = nn.Parameter(torch.ones(size, dtype=dtype, device=device), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., size] → the same shape."""
        out = torch.empty_like(x)
        rms_norm(out, x, self.weight, self.eps)
        return out

    def add_norm(
        self, x: torch.Tensor, residual: torch.Tensor, lora: Expansion | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """residual += x with what adapters add to it, x = norm(residual), both in place; returns (x, residual)."""
        fused_add_rms_norm(x, residual, self.weight, self.eps, lora)
        return x, residual

    def targets(self) -> dict[str, Target]:
        return {f'{self.name}.weight': Target(tuple(self.weight.shape), self._load)}

    def _load(self, tensor: torch.Tensor) -> None:
        self.weight.data.copy_(tensor)
