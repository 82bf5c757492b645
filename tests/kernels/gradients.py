"""Gradients from torch's autograd in float64, which the backward ops are compared with."""

from collections.abc import Callable

import torch


def exact(
    function: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
    inputs: list[torch.Tensor],
    slopes: list[torch.Tensor],
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(outputs, gradients of the inputs) of `function` for the gradients `slopes` of its outputs."""
    leaves = [x.detach().double().cpu().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    grads = torch.autograd.grad(outputs, leaves, [s.double().cpu() for s in slopes])
    return [x.detach() for x in outputs], list(grads)
