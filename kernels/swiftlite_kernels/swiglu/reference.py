"""SwiGLU and its gradient in torch."""

import torch
import torch.nn.functional as F


def swiglu(out: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> None:
    torch.mul(F.silu(gate), up, out=out)


def swiglu_backward(gate: torch.Tensor, up: torch.Tensor, grad_out: torch.Tensor, output: bool = True) -> None:
    dtype = torch.float64 if gate.dtype == torch.float64 else torch.float32
    x, y, slope = gate.to(dtype), up.to(dtype), grad_out.to(dtype)
    sigmoid = torch.sigmoid(x)
    silu = F.silu(gate)
    product = silu * up
    grad_gate = slope * y * sigmoid * (1 + x * (1 - sigmoid))
    up.copy_(slope * silu.to(dtype))  # `y` may be `up` itself
    gate.copy_(grad_gate)
    if output:
        grad_out.copy_(product)
