"""RMSNorm of a residual stream and its gradient in Triton: a row is read once, by one program."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import begin, early_launch, multiprocessors, next_power_of_2


@triton.jit(do_not_specialize=['rows'])
def add_norm_kernel(
    out, total, x, residual, weight, rows, hidden, epsilon, out_stride, total_stride, x_stride, residual_stride,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = (row < rows) & (column < hidden)
    value = tl.load(x + row * x_stride + column, mask, other=0.0)
    before = tl.load(residual + row * residual_stride + column, mask, other=0.0)
    value = (value.to(tl.float32) + before.to(tl.float32)).to(before.dtype)
    tl.store(total + row * total_stride + column, value, mask)
    wide = value.to(tl.float32)
    factor = tl.rsqrt(tl.sum(wide * wide, 1) / hidden + epsilon)
    normal = (wide * factor[:, None]).to(value.dtype).to(tl.float32)
    scale = tl.load(weight + column, column < hidden, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, (normal * scale).to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=['rows', 'share'])
def norm_backward_kernel(
    grad_x, partial, grad_out, grad_residual, x, weight, rows, share, hidden, epsilon,
    grad_x_stride, grad_out_stride, grad_residual_stride, x_stride,
    WEIGHT: tl.constexpr, RESIDUAL: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    """A program takes `share` rows, ROWS at a time, and sums their part of the weight's gradient."""
    begin(EARLY)
    column = tl.arange(0, BLOCK)[None, :]
    inside = column < hidden
    scale = tl.load(weight + column, inside, other=0.0).to(tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    first = tl.program_id(0) * share
    for start in range(first, tl.minimum(first + share, rows), ROWS):
        row = (start + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        mask = (row < tl.minimum(first + share, rows)) & inside
        value = tl.load(x + row * x_stride + column, mask, other=0.0).to(tl.float32)
        slope = tl.load(grad_out + row * grad_out_stride + column, mask, other=0.0).to(tl.float32)
        factor = tl.rsqrt(tl.sum(value * value, 1) / hidden + epsilon)[:, None]
        normal = value * factor
        if WEIGHT:
            total += tl.sum(slope * normal, 0)
        slope = slope * scale
        grad = (slope - normal * (tl.sum(slope * normal, 1) / hidden)[:, None]) * factor
        if RESIDUAL:
            grad += tl.load(grad_residual + row * grad_residual_stride + column, mask, other=0.0).to(tl.float32)
        tl.store(grad_x + row * grad_x_stride + column, grad.to(grad_x.dtype.element_ty), mask)
    if WEIGHT:
        place = tl.arange(0, BLOCK)
        tl.store(partial + tl.program_id(0).to(tl.int64) * hidden + place, total, place < hidden)


def add_rms_norm(
    out: torch.Tensor,
    total: torch.Tensor,
    input: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> None:
    hidden = input.shape[-1]
    out, total, input, residual = (t.view(-1, hidden) for t in (out, total, input, residual))
    rows, block = input.shape[0], next_power_of_2(hidden)
    if rows == 0:
        return
    short = max(1, 1024 // block)
    add_norm_kernel[(triton.cdiv(rows, short),)](
        out, total, input, residual, weight, rows, hidden, epsilon,
        out.stride(0), total.stride(0), input.stride(0), residual.stride(0),
        ROWS=short, BLOCK=block, **early_launch(input), num_warps=4 if block * short <= 2048 else 8,
    )


def rms_norm_backward(
    grad_input: torch.Tensor,
    grad_weight: torch.Tensor | None,
    grad_out: torch.Tensor,
    grad_residual: torch.Tensor | None,
    input: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
) -> None:
    rows, hidden = input.shape
    block = next_power_of_2(hidden)
    short = max(1, 1024 // block)
    # where the weight is trained a program sums many rows, so that few partial sums are written
    programs = triton.cdiv(rows, short)
    if grad_weight is not None:
        programs = min(programs, 4 * multiprocessors(input.device))
    if rows == 0:
        if grad_weight is not None:
            grad_weight.zero_()
        return
    share = triton.cdiv(triton.cdiv(rows, programs), short) * short
    programs = triton.cdiv(rows, share)
    partial = None
    if grad_weight is not None:
        partial = torch.empty(programs, hidden, dtype=torch.float32, device=input.device)
    other = grad_out if grad_residual is None else grad_residual
    norm_backward_kernel[(programs,)](
        grad_input, partial, grad_out, other, input, weight, rows, share, hidden, epsilon,
        grad_input.stride(0), grad_out.stride(0), other.stride(0), input.stride(0),
        WEIGHT=partial is not None, RESIDUAL=grad_residual is not None, ROWS=short, BLOCK=block,
        **early_launch(input), num_warps=4 if block * short <= 2048 else 8,
    )
    if grad_weight is not None:
        torch.sum(partial, 0, out=grad_weight)
