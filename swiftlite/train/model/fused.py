"""Differentiable ops of a decoder layer in few passes: norms of the residual stream, rotary, SwiGLU."""

from typing import Any

import torch
from torch import nn

from swiftlite_kernels import norm, residual_norm, rope, swiglu

Gradients = tuple[torch.Tensor | None, ...]


def compute_dtype(x: torch.Tensor) -> torch.dtype:
    """What a linear layer computes x in: autocast's dtype where that is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rows_of(x: torch.Tensor) -> torch.Tensor:
    """[..., n] as [rows, n] without gaps."""
    return x.contiguous().view(-1, x.shape[-1])


class Norm(torch.autograd.Function):
    """(rms_norm(x), x): whatever else is computed from the second output is added to x's gradient in the same pass.

    The first is rounded to `dtype`; see swiftlite_kernels.norm for the arithmetic.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        rows = rows_of(x)
        out = torch.empty_like(rows, dtype=dtype)
        norm.rms_norm(out, rows, weight, epsilon)
        ctx.save_for_backward(rows, weight)
        ctx.epsilon = epsilon
        return out.view(x.shape), x

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor | None, residual: torch.Tensor | None) -> Gradients:  # type: ignore[override]
        if grad is None:
            return residual, None, None, None
        return *norm_gradients(ctx, grad, residual, *ctx.saved_tensors), None, None


class AddNorm(torch.autograd.Function):
    """(rms_norm(x + residual), x + residual)."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        total = torch.empty_like(rows_of(residual))
        out = torch.empty_like(total, dtype=dtype)
        residual_norm.add_rms_norm(out, total, rows_of(x), rows_of(residual), weight, epsilon)
        ctx.save_for_backward(total, weight)
        ctx.epsilon, ctx.dtype = epsilon, x.dtype
        return out.view(x.shape), total.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor | None, residual: torch.Tensor | None) -> Gradients:  # type: ignore[override]
        if grad is None:
            return None if residual is None else residual.to(ctx.dtype), residual, None, None, None
        found, weight = norm_gradients(ctx, grad, residual, *ctx.saved_tensors)
        return found.to(ctx.dtype), found, weight, None, None


def norm_gradients(
    ctx: Any, grad: torch.Tensor, residual: torch.Tensor | None, rows: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Gradients of the normed rows [rows, hidden], in grad's shape, and of the weight where it is trained."""
    found = torch.empty_like(rows)
    wide = torch.float64 if weight.dtype == torch.float64 else torch.float32
    trained = torch.empty_like(weight, dtype=wide) if ctx.needs_input_grad[-3] else None
    other = None if residual is None else rows_of(residual)
    residual_norm.rms_norm_backward(found, trained, rows_of(grad), other, rows, weight, ctx.epsilon)
    return found.view(grad.shape), None if trained is None else trained.to(weight.dtype)


def rms_norm(x: torch.Tensor, module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(normed, x) for a transformers RMSNorm; use the second in the place of x afterwards."""
    return Norm.apply(x, module.weight, module.variance_epsilon, compute_dtype(x))


def add_rms_norm(x: torch.Tensor, residual: torch.Tensor, module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """(normed, x + residual)."""
    return AddNorm.apply(x, residual, module.weight, module.variance_epsilon, compute_dtype(residual))


class Rotary(torch.autograd.Function):
    """Query and key [B, S, heads, head_size] turned by their positions; cos, sin as transformers makes them."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin)
        return turned(query, key, cos, sin, False)

    @staticmethod
    def backward(ctx: Any, query: torch.Tensor, key: torch.Tensor) -> Gradients:  # type: ignore[override]
        cos, sin = ctx.saved_tensors
        return *turned(query, key, cos, sin, True), None, None


def turned(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, inverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    query, key, cos, sin = (x if x.stride(-1) == 1 else x.contiguous() for x in (query, key, cos, sin))
    first, second = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key))
    rope.rotate_query_key(first, second, query, key, cos, sin, inverse)
    return first, second


class SwiGLU(torch.autograd.Function):
    """silu(gate) * up; the backward pass writes over gate and up, so it can be run once."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        swiglu.swiglu(out, gate, up)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Gradients:  # type: ignore[override]
        once(ctx)
        gate, up = ctx.saved_tensors
        swiglu.swiglu_backward(gate, up, grad.contiguous(), False)
        return gate, up


def once(ctx: Any) -> None:
    """Refuse a second backward pass over what the first has written over."""
    if getattr(ctx, 'spent', False):
        raise RuntimeError('this backward pass has run and used up what it needs: train with --use_kernels false')
    ctx.spent = True
