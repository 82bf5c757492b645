"""SwiGLU and its gradient in torch."""

import torch
import torch.nn.functional as F

from swiftlite_kernels.lora_dropout.reference import dropped
from swiftlite_kernels.swiglu import LowRank


def added(x: torch.Tensor, more: LowRank | None) -> torch.Tensor:
    """x with what is added to it, rounded to its dtype."""
    if more is None:
        return x
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    product = more.scale * (more.left.to(dtype) @ more.right.to(dtype).T)
    if more.dropout:
        product = dropped(product, more.dropout, more.seed)
    return (x.to(dtype) + product.view(x.shape)).to(x.dtype)


def swiglu(
    out: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    to_gate: LowRank | None = None,
    to_up: LowRank | None = None,
) -> None:
    torch.mul(F.silu(added(gate, to_gate)), added(up, to_up), out=out)


def swiglu_backward(
    gate: torch.Tensor,
    up: torch.Tensor,
    grad_out: torch.Tensor,
    output: bool = True,
    to_gate: LowRank | None = None,
    to_up: LowRank | None = None,
    to_grad: LowRank | None = None,
) -> None:
    dtype = torch.float64 if gate.dtype == torch.float64 else torch.float32
    whole, other = added(gate, to_gate), added(up, to_up)
    x, y, slope = whole.to(dtype), other.to(dtype), added(grad_out, to_grad).to(dtype)
    sigmoid = torch.sigmoid(x)
    silu = F.silu(whole)
    product = silu * other
    grad_gate = slope * y * sigmoid * (1 + x * (1 - sigmoid))
    up.copy_(slope * silu.to(dtype))  # `y` may be `up` itself
    gate.copy_(grad_gate)
    if output:
        grad_out.copy_(product)
