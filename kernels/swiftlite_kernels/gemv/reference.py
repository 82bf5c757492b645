"""A weight times one row in torch."""

import torch
import torch.nn.functional as F


def gemv(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
    norm_weight: torch.Tensor | None, epsilon: float, gated: bool,
) -> None:
    x = x.float()
    if norm_weight is not None:
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * norm_weight.float()
    y = x @ weight.float().T
    if bias is not None:
        y += bias.float()
    if gated:
        gate, up = y.chunk(2, dim=-1)
        y = F.silu(gate) * up
    if residual is not None:
        y += residual.float()
    out.copy_(y)
