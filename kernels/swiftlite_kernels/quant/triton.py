"""Quantisation to fp8 in Triton."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.quant.groups import E4M3_MAX, SMALLEST_ROW_SCALE, SMALLEST_SCALE
from swiftlite_kernels.triton import begin, divide, early_launch, next_power_of_2

LIMIT = tl.constexpr(E4M3_MAX)
LEAST = tl.constexpr(SMALLEST_SCALE)
LEAST_OF_ROW = tl.constexpr(SMALLEST_ROW_SCALE)
BLOCK = 1024
PARTS = 1024  # programs that look for the largest element


@triton.jit
def put(output, at, x, mask):
    tl.store(output + at, tl.clamp(x, -LIMIT, LIMIT).to(output.dtype.element_ty), mask)


@triton.jit
def by_kernel(
    output, input, scale, tokens, columns, output_row, input_row, scale_row, scale_column, group_rows, group_columns,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (row, part of it); rows past `tokens` become zeros."""
    begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = i < columns
    x = tl.load(input + row * input_row + i, mask & (row < tokens), other=0.0).to(tl.float32)
    group = row // group_rows * scale_row + i // group_columns * scale_column
    factor = tl.load(scale + group, mask & (row < tokens), other=1.0)
    put(output, row * output_row + i, x * divide(tl.full([BLOCK], 1.0, tl.float32), factor), mask)


@triton.jit
def largest_kernel(input, part, tokens, columns, input_row, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """Program p: the largest magnitude of rows p, p + programs, …"""
    begin(EARLY)
    found = tl.zeros([BLOCK], tl.float32)
    for row in range(tl.program_id(0), tokens, tl.num_programs(0)):
        for first in range(0, columns, BLOCK):
            i = first + tl.arange(0, BLOCK)
            at = (row + tl.zeros([BLOCK], tl.int64)) * input_row + i
            x = tl.load(input + at, i < columns, other=0.0).to(tl.float32)
            found = tl.maximum(found, tl.abs(x))
    tl.store(part + tl.program_id(0), tl.max(found, 0))


@triton.jit
def whole_kernel(
    output, input, scale, part, parts, tokens, columns, output_row, input_row, PARTS: tl.constexpr,
    BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (row, part of it): the scale from the largest elements, then as by_kernel."""
    begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    p = tl.arange(0, PARTS)
    largest = tl.max(tl.load(part + p, p < parts, other=0.0), 0) + tl.zeros([BLOCK], tl.float32)
    factor = tl.maximum(divide(largest, tl.full([BLOCK], LIMIT, tl.float32)), LEAST)
    if (row == 0) & (tl.program_id(1) == 0):
        tl.store(scale, tl.max(factor, 0))
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = i < columns
    x = tl.load(input + row * input_row + i, mask & (row < tokens), other=0.0).to(tl.float32)
    put(output, row * output_row + i, x * divide(tl.full([BLOCK], 1.0, tl.float32), factor), mask)


@triton.jit
def rows_kernel(
    output, input, scale, limit, tokens, columns, output_row, input_row, UPPER: tl.constexpr, BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """A program a row: its largest element, then the row divided."""
    begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    found = tl.zeros([BLOCK], tl.float32)
    for first in range(0, columns, BLOCK):
        i = first + tl.arange(0, BLOCK)
        x = tl.load(input + row * input_row + i, (i < columns) & (row < tokens), other=0.0).to(tl.float32)
        found = tl.maximum(found, tl.abs(x))
    largest = tl.max(found, 0) + tl.zeros([BLOCK], tl.float32)
    if UPPER:
        largest = tl.minimum(largest, tl.load(limit))
    factor = tl.maximum(divide(largest, tl.full([BLOCK], LIMIT, tl.float32)), LEAST_OF_ROW)
    tl.store(scale + row, tl.max(factor, 0))
    for first in range(0, columns, BLOCK):
        i = first + tl.arange(0, BLOCK)
        x = tl.load(input + row * input_row + i, (i < columns) & (row < tokens), other=0.0).to(tl.float32)
        put(output, row * output_row + i, divide(x, factor), i < columns)


def scaled_fp8_quant(output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor, rows: int, columns: int) -> None:
    check(output, input)
    if output.numel():
        by_kernel[(output.shape[0], triton.cdiv(output.shape[1], BLOCK))](
            output, input, scale, *input.shape, output.stride(0), input.stride(0), *scale.stride(), rows, columns,
            BLOCK=BLOCK, **early_launch(input), num_warps=4,
        )


def dynamic_scaled_fp8_quant(
    output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor, scale_ub: torch.Tensor | None
) -> None:
    if scale.dim() == 2:
        quantize_rows(output, input, scale, scale_ub)
    else:
        quantize_whole(output, input, scale)


def quantize_whole(output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor) -> None:
    check(output, input)
    if not output.numel():
        scale.fill_(SMALLEST_SCALE)
        return
    parts = min(max(input.shape[0], 1), PARTS)
    part = torch.empty(parts, dtype=torch.float32, device=input.device)
    largest_kernel[(parts,)](
        input, part, *input.shape, input.stride(0), BLOCK=BLOCK, **early_launch(input), num_warps=4
    )
    whole_kernel[(output.shape[0], triton.cdiv(output.shape[1], BLOCK))](
        output, input, scale, part, parts, *input.shape, output.stride(0), input.stride(0),
        PARTS=next_power_of_2(parts), BLOCK=BLOCK, **early_launch(input), num_warps=4,
    )


def quantize_rows(
    output: torch.Tensor, input: torch.Tensor, scale: torch.Tensor, scale_ub: torch.Tensor | None
) -> None:
    check(output, input)
    if not output.numel():
        scale.fill_(SMALLEST_ROW_SCALE)
        return
    rows_kernel[(output.shape[0],)](
        output, input, scale, scale_ub, *input.shape, output.stride(0), input.stride(0), UPPER=scale_ub is not None,
        BLOCK=min(4096, next_power_of_2(input.shape[1])), **early_launch(input), num_warps=4,
    )


def check(output: torch.Tensor, input: torch.Tensor) -> None:
    for x in (output, input):
        if x.stride(-1) != 1 and x.shape[-1] > 1:
            raise ValueError(f'rows must be contiguous, got strides {x.stride()}')
