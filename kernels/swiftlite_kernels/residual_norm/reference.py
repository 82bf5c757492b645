"""RMSNorm of a residual stream and its gradient in torch. Sums are in fp32, or in fp64 for fp64 inputs."""

import torch


def wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


def add_rms_norm(
    out: torch.Tensor,
    total: torch.Tensor,
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> None:
    torch.add(input, residual, out=total)
    x = wide(total)
    out.copy_((x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)).to(total.dtype) * weight)


def rms_norm_backward(
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor | None,
    grad_out: torch.Tensor,
    grad_residual: torch.Tensor | None,
    input: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> None:
    x, slope = wide(input), wide(grad_out)
    factor = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
    normal = x * factor
    if grad_weight is not None:
        grad_weight.copy_((slope * normal).sum(0))
    slope = slope * wide(weight)
    grad = (slope - normal * (slope * normal).mean(-1, keepdim=True)) * factor
    grad_input.copy_(grad if grad_residual is None else grad + wide(grad_residual))
