"""A weight times one row in torch."""

import torch
import torch.nn.functional as F

from swiftlite_kernels.paged_lora import Expansion
from swiftlite_kernels.paged_lora.reference import expand


def gemv(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
    norm_weight: torch.Tensor | None, epsilon: float, gated: bool, lora: Expansion | None,
) -> None:
    x, scale = x.float(), torch.ones(1, 1, device=x.device)
    if norm_weight is not None:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
        x = x * norm_weight.float()
    y = x @ weight.float().T
    if lora is not None:
        expand(y, lora.shrunk, lora.b.float(), lora.widths, lora.routing)
    y *= scale
    if bias is not None:
        y += bias.float()
    if gated:
        gate, up = y.chunk(2, dim=-1)
        y = F.silu(gate) * up
    if residual is not None:
        y += residual.float()
    out.copy_(y)
