"""SwiGLU of separate gate and up projections, with its gradient (Shazeer 2020), and their adapters on the way."""

from dataclasses import dataclass

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['LowRank', 'swiglu', 'swiglu_backward']


@dataclass(frozen=True)
class LowRank:
    """scale * left @ right.T, to be added to a tensor [rows, columns]: what an adapter says (LoRA, arXiv 2106.09685).

    left [rows, rank] (rows may be strided), right [columns, rank] (any strides), of the tensor's dtype. With dropout
    above 0, nothing is added to the elements that lora_dropout drops for `seed`, and 1 / (1 - dropout) as much to the
    others.
    """

    left: torch.Tensor
    right: torch.Tensor
    scale: float = 1.0
    dropout: float = 0.0
    seed: int = 0


def swiglu(
    out: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    to_gate: LowRank | None = None,
    to_up: LowRank | None = None,
) -> None:
    """out = silu(gate + to_gate) * (up + to_up), contiguous [..., columns] of one dtype; gate and up stay.

    Computed in fp32; the sums are rounded to the dtype, and so is silu, as if they were tensors.
    """
    backend('swiglu', gate).swiglu(out, gate, up, to_gate, to_up)


def swiglu_backward(
    gate: torch.Tensor,
    up: torch.Tensor,
    grad_out: torch.Tensor,
    output: bool = True,
    to_gate: LowRank | None = None,
    to_up: LowRank | None = None,
    to_grad: LowRank | None = None,
) -> None:
    """For the gradient grad_out + to_grad, in place: gate and up become their gradients, and with `output` grad_out
    becomes the output again.

    So the backward pass of the layer behind it has its input, and nothing more is allocated.
    """
    backend('swiglu', gate).swiglu_backward(gate, up, grad_out, output, to_gate, to_up, to_grad)
