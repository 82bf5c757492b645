"""SwiGLU of separate gate and up projections, with its gradient (Shazeer 2020)."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['swiglu', 'swiglu_backward']


def swiglu(out: torch.Tensor, gate: torch.Tensor, up: torch.Tensor) -> None:
    """out = silu(gate) * up, contiguous tensors of one shape and dtype; computed in fp32, rounded like silu_and_mul."""
    backend('swiglu', gate).swiglu(out, gate, up)


def swiglu_backward(gate: torch.Tensor, up: torch.Tensor, grad_out: torch.Tensor, output: bool = True) -> None:
    """In place: gate and up become their gradients, and with `output` grad_out becomes silu(gate) * up again.

    So the backward pass of the layer behind it has its input, and nothing more is allocated.
    """
    backend('swiglu', gate).swiglu_backward(gate, up, grad_out, output)
