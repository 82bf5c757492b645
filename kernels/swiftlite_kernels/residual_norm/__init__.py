"""RMSNorm of a residual stream as training needs it: the sum is kept, and there is a backward pass."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['add_rms_norm', 'rms_norm_backward']


def add_rms_norm(
    out: torch.Tensor,
    total: torch.Tensor,
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> None:
    """total = input + residual (rounded to its dtype), out = rms_norm(total); input and residual stay as they are.

    All [..., hidden] of one dtype, rows without gaps in between being one list (a view of [rows, hidden]); weight
    [hidden]. Rounding is that of norm.rms_norm.
    """
    backend('residual_norm', input).add_rms_norm(out, total, input, residual, weight, epsilon)


def rms_norm_backward(
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor | None,
    grad_out: torch.Tensor,
    grad_residual: torch.Tensor | None,
    input: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> None:
    """Gradient of norm.rms_norm at `input`; what else flows into the residual stream is added in the same pass.

    With n = input / rms and g = grad_out * weight: grad_input = (g - n * mean(g * n)) / rms + grad_residual, computed
    in fp32 and rounded once. It may be grad_out itself. grad_weight fp32 [hidden] or None becomes sum(grad_out * n)
    over the rows; the others [rows, hidden], rows may be strided.
    """
    backend('residual_norm', input).rms_norm_backward(
        grad_input, grad_weight, grad_out, grad_residual, input, weight, epsilon
    )
