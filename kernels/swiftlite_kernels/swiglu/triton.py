"""SwiGLU and its gradient in Triton: one pass over each tensor, flat, or in tiles where adapters are added."""

from typing import Any

import torch
import triton
import triton.language as tl

from swiftlite_kernels.lora_dropout.triton import hashed, mix, words
from swiftlite_kernels.swiglu import LowRank
from swiftlite_kernels.triton import begin, divide, early_launch, exp, next_power_of_2

BLOCK = 2048


@triton.jit
def logistic(x):
    """1 / (1 + exp(-x)) without overflow."""
    small = exp(-tl.abs(x))
    return divide(tl.where(x < 0, small, 1.0), 1 + small)


@triton.jit
def output_of(x, y, dtype: tl.constexpr):
    """silu(x) rounded, times y."""
    return (x * logistic(x)).to(dtype).to(tl.float32) * y


@triton.jit
def gradients(x, y, slope, dtype: tl.constexpr):
    """(of gate, of up, the output)."""
    sigmoid = logistic(x)
    silu = (x * sigmoid).to(dtype).to(tl.float32)
    return slope * y * sigmoid * (1 + x * (1 - sigmoid)), slope * silu, silu * y


@triton.jit(do_not_specialize=['count'])
def swiglu_kernel(out, gate, up, count, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    begin(EARLY)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    x = tl.load(gate + at, mask, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask, other=0.0).to(tl.float32)
    tl.store(out + at, output_of(x, y, gate.dtype.element_ty).to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=['count'])
def swiglu_backward_kernel(
    gate, up, grad_out, count, OUTPUT: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr
):
    begin(EARLY)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < count
    dtype: tl.constexpr = gate.dtype.element_ty
    x = tl.load(gate + at, mask, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask, other=0.0).to(tl.float32)
    slope = tl.load(grad_out + at, mask, other=0.0).to(tl.float32)
    of_gate, of_up, product = gradients(x, y, slope, dtype)
    if OUTPUT:
        tl.store(grad_out + at, product.to(dtype), mask)
    tl.store(up + at, of_up.to(dtype), mask)
    tl.store(gate + at, of_gate.to(dtype), mask)


@triton.jit
def low_rank(
    left, right, row, column, rows, columns, rank, left_row, right_column, right_rank,
    RANK: tl.constexpr, IEEE: tl.constexpr,
):
    """left @ right.T of a tile in fp32."""
    STEP: tl.constexpr = RANK if RANK < 128 else 128  # more do not fit into the shared memory of every GPU
    total = tl.zeros([row.shape[0], column.shape[0]], tl.float32)
    for start in tl.static_range(0, RANK, STEP):
        r = start + tl.arange(0, STEP)
        a = tl.load(left + row.to(tl.int64)[:, None] * left_row + r[None, :],
                    (row < rows)[:, None] & (r < rank)[None, :], other=0.0)
        b = tl.load(right + r[:, None] * right_rank + column[None, :] * right_column,
                    (r < rank)[:, None] & (column < columns)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision='ieee' if IEEE else None)
    return total


@triton.jit(do_not_specialize=['rows'])
def swiglu_adapted_kernel(
    out, gate, up, rows, columns,
    gate_left, gate_right, gate_scale, gate_rank, gate_row, gate_column, gate_stride,
    up_left, up_right, up_scale, up_rank, up_row, up_column, up_stride,
    GATE: tl.constexpr, UP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, IEEE: tl.constexpr,
    EARLY: tl.constexpr,
):
    """GATE, UP: ranks padded to powers of 2, 0 where nothing is added."""
    begin(EARLY)
    row, column = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    dtype: tl.constexpr = gate.dtype.element_ty
    x = tl.load(gate + at, mask, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask, other=0.0).to(tl.float32)
    if GATE > 0:
        more = low_rank(gate_left, gate_right, row, column, rows, columns, gate_rank, gate_row, gate_column,
                        gate_stride, GATE, IEEE)
        x = (x + more * gate_scale).to(dtype).to(tl.float32)
    if UP > 0:
        more = low_rank(up_left, up_right, row, column, rows, columns, up_rank, up_row, up_column,
                        up_stride, UP, IEEE)
        y = (y + more * up_scale).to(dtype).to(tl.float32)
    tl.store(out + at, output_of(x, y, dtype).to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=['rows', 'low', 'high', 'limit'])
def swiglu_adapted_backward_kernel(
    gate, up, grad_out, rows, columns,
    gate_left, gate_right, gate_scale, gate_rank, gate_row, gate_column, gate_stride,
    up_left, up_right, up_scale, up_rank, up_row, up_column, up_stride,
    grad_left, grad_right, grad_scale, grad_rank, grad_row, grad_column, grad_stride, low, high, limit, kept_scale,
    GATE: tl.constexpr, UP: tl.constexpr, GRAD: tl.constexpr, DROPOUT: tl.constexpr, OUTPUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, IEEE: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    row, column = tl.program_id(1) * ROWS + tl.arange(0, ROWS), tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    at = row.to(tl.int64)[:, None] * columns + column[None, :]
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    dtype: tl.constexpr = gate.dtype.element_ty
    x = tl.load(gate + at, mask, other=0.0).to(tl.float32)
    y = tl.load(up + at, mask, other=0.0).to(tl.float32)
    slope = tl.load(grad_out + at, mask, other=0.0).to(tl.float32)
    if GATE > 0:
        more = low_rank(gate_left, gate_right, row, column, rows, columns, gate_rank, gate_row, gate_column,
                        gate_stride, GATE, IEEE)
        x = (x + more * gate_scale).to(dtype).to(tl.float32)
    if UP > 0:
        more = low_rank(up_left, up_right, row, column, rows, columns, up_rank, up_row, up_column,
                        up_stride, UP, IEEE)
        y = (y + more * up_scale).to(dtype).to(tl.float32)
    if GRAD > 0:
        more = low_rank(grad_left, grad_right, row, column, rows, columns, grad_rank, grad_row, grad_column,
                        grad_stride, GRAD, IEEE) * grad_scale
        if DROPOUT:
            keep = mix(hashed(row, low)[:, None] ^ hashed(column, high)[None, :]) >= limit.to(tl.uint32)
            more = tl.where(keep, more * kept_scale, 0.0)
        slope = (slope + more).to(dtype).to(tl.float32)
    of_gate, of_up, product = gradients(x, y, slope, dtype)
    if OUTPUT:
        tl.store(grad_out + at, product.to(dtype), mask)
    tl.store(up + at, of_up.to(dtype), mask)
    tl.store(gate + at, of_gate.to(dtype), mask)


def swiglu(
    out: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    to_gate: LowRank | None = None,
    to_up: LowRank | None = None,
) -> None:
    count = dense(out, gate, up)
    if count == 0:
        return
    if to_gate is None and to_up is None:
        swiglu_kernel[(triton.cdiv(count, BLOCK),)](
            out, gate, up, count, BLOCK=BLOCK, **early_launch(gate), num_warps=8
        )
        return
    grid, sizes = tiles(gate)
    swiglu_adapted_kernel[grid](
        out, gate, up, count // gate.shape[-1], gate.shape[-1], *parts(to_gate, gate), *parts(to_up, gate),
        GATE=padded(to_gate), UP=padded(to_up), **sizes, **early_launch(gate),
    )


def swiglu_backward(
    gate: torch.Tensor,
    up: torch.Tensor,
    grad_out: torch.Tensor,
    output: bool = True,
    to_gate: LowRank | None = None,
    to_up: LowRank | None = None,
    to_grad: LowRank | None = None,
) -> None:
    count = dense(gate, up, grad_out)
    if count == 0:
        return
    if to_gate is None and to_up is None and to_grad is None:
        swiglu_backward_kernel[(triton.cdiv(count, BLOCK),)](
            gate, up, grad_out, count, OUTPUT=output, BLOCK=BLOCK, **early_launch(gate), num_warps=8
        )
        return
    grid, sizes = tiles(gate)
    drops = to_grad is not None and to_grad.dropout > 0
    seeds = words(to_grad.seed, to_grad.dropout) if to_grad is not None and drops else (0, 0, 0, 1.0)
    swiglu_adapted_backward_kernel[grid](
        gate, up, grad_out, count // gate.shape[-1], gate.shape[-1],
        *parts(to_gate, gate), *parts(to_up, gate), *parts(to_grad, gate), *seeds,
        GATE=padded(to_gate), UP=padded(to_up), GRAD=padded(to_grad), DROPOUT=drops, OUTPUT=output, **sizes,
        **early_launch(gate),
    )


def tiles(x: torch.Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """Grid and tile of the kernels that add adapters; fp32 products are done in registers."""
    single = x.dtype == torch.float32
    side = 32 if single else 64
    grid = triton.cdiv(x.shape[-1], side), triton.cdiv(x.numel() // x.shape[-1], side)
    return grid, {'ROWS': side, 'COLUMNS': side, 'IEEE': single, 'num_warps': 4 if single else 8}


def padded(more: LowRank | None) -> int:
    return 0 if more is None else max(16, next_power_of_2(more.left.shape[1]))


def parts(more: LowRank | None, other: torch.Tensor) -> tuple[Any, ...]:
    """left, right, scale, rank, left's stride and right's as a kernel takes them."""
    if more is None:
        return other, other, 0.0, 0, 0, 0, 0
    if more.left.stride(1) != 1:
        raise ValueError(f'rows of the left factor must have no gaps, got strides {more.left.stride()}')
    return more.left, more.right, more.scale, more.left.shape[1], more.left.stride(0), *more.right.stride()


def dense(*tensors: torch.Tensor) -> int:
    """Elements of each of the tensors, which are contiguous and of one shape (else ValueError)."""
    if any(not x.is_contiguous() or x.shape != tensors[0].shape for x in tensors):
        raise ValueError(f'contiguous tensors of one shape are needed, got {[tuple(x.shape) for x in tensors]}')
    return tensors[0].numel()
