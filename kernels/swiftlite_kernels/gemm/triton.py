"""Products with a few rows in Triton.

One row is a sum on the ordinary cores, a program a few columns; more rows go through the matrix unit with the weight
as the left operand. The norm costs no pass of its own: its scale leaves the sum, so squares are added up beside the
products.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import begin, divide, early_launch, exp, next_power_of_2, shared_memory


@dataclass(frozen=True)
class Tiles:
    """Sizes of one launch: output columns and inner elements of a program's step."""

    columns: int
    inner: int
    warps: int
    stages: int


@triton.jit
def epilogue(y, up, bias, column, width, mask, BIAS: tl.constexpr, GATED: tl.constexpr):
    """Bias and gate of a tile; up is the gated half's partner."""
    if BIAS:
        y += tl.load(bias + column, mask, other=0.0).to(tl.float32)
        if GATED:
            up += tl.load(bias + width + column, mask, other=0.0).to(tl.float32)
    if GATED:
        y = divide(y, 1 + exp(-y)) * up
    return y


@triton.jit
def one_row_kernel(
    out, x, weight, bias, residual, norm_weight, epsilon, width, inner, weight_row,
    NORM: tl.constexpr, BIAS: tl.constexpr, GATED: tl.constexpr, RESIDUAL: tl.constexpr, COLUMNS: tl.constexpr,
    INNER: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (COLUMNS columns)."""
    column, k = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, INNER)
    live = column < width
    at = weight + column.to(tl.int64)[:, None] * weight_row + k[None, :]
    partner = at + tl.cast(width, tl.int64) * weight_row
    mask = live[:, None] & (k < inner)[None, :]
    tile = tl.load(at, mask, other=0.0)  # the weight waits for nobody
    other = tl.load(partner, mask, other=0.0) if GATED else tile
    begin(EARLY)
    acc = tl.zeros([COLUMNS, INNER], tl.float32)
    up = tl.zeros([COLUMNS, INNER], tl.float32)
    squares = tl.zeros([INNER], tl.float32)
    for first in range(0, inner, INNER):
        value = tl.load(x + first + k, first + k < inner, other=0.0).to(tl.float32)
        if NORM:
            squares += value * value
            value *= tl.load(norm_weight + first + k, first + k < inner, other=0.0).to(tl.float32)
        acc += tile.to(tl.float32) * value[None, :]
        if GATED:
            up += other.to(tl.float32) * value[None, :]
        mask = live[:, None] & (first + INNER + k < inner)[None, :]
        tile = tl.load(at + first + INNER, mask, other=0.0)
        if GATED:
            other = tl.load(partner + first + INNER, mask, other=0.0)
    y, z = tl.sum(acc, 1), tl.sum(up, 1)
    if NORM:
        scale = tl.rsqrt(tl.sum(squares, 0) / inner + epsilon)
        y, z = y * scale, z * scale
    y = epilogue(y, z, bias, column, width, live, BIAS, GATED)
    if RESIDUAL:
        y += tl.load(residual + column, live, other=0.0).to(tl.float32)
    tl.store(out + column, y.to(out.dtype.element_ty), live)


@triton.jit(do_not_specialize=['rows'])
def few_rows_kernel(
    out, x, weight, bias, residual, norm_weight, epsilon, rows, width, inner, weight_row, x_row, out_row, residual_row,
    NORM: tl.constexpr, BIAS: tl.constexpr, GATED: tl.constexpr, RESIDUAL: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr, INNER: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (COLUMNS columns), of all rows."""
    begin(EARLY)
    column, row, k = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, ROWS), tl.arange(0, INNER)
    at = weight + tl.minimum(column, width - 1).to(tl.int64)[:, None] * weight_row
    partner = at + tl.cast(width, tl.int64) * weight_row
    acc = tl.zeros([COLUMNS, ROWS], tl.float32)
    up = tl.zeros([COLUMNS, ROWS], tl.float32)
    squares = tl.zeros([INNER, ROWS], tl.float32)
    for first in range(0, inner, INNER):
        inside = first + k < inner
        value = tl.load(x + row[None, :] * x_row + (first + k)[:, None], inside[:, None] & (row < rows)[None, :],
        other=0.0)
        if NORM:
            wide = value.to(tl.float32)
            squares += wide * wide
            gain = tl.load(norm_weight + first + k, inside, other=0.0).to(tl.float32)
            value = (wide * gain[:, None]).to(value.dtype)
        tile = tl.load(at + (first + k)[None, :], inside[None, :], other=0.0)
        acc = tl.dot(tile, value, acc, input_precision=PRECISION)
        if GATED:
            other = tl.load(partner + (first + k)[None, :], inside[None, :], other=0.0)
            up = tl.dot(other, value, up, input_precision=PRECISION)
    if NORM:
        scale = tl.rsqrt(tl.sum(squares, 0) / inner + epsilon)
        acc, up = acc * scale[None, :], up * scale[None, :]
    mask = (column < width)[:, None] & (row < rows)[None, :]
    y = epilogue(acc, up, bias, column[:, None], width, (column < width)[:, None], BIAS, GATED)
    if RESIDUAL:
        y += tl.load(residual + row[None, :] * residual_row + column[:, None], mask, other=0.0).to(tl.float32)
    tl.store(out + row[None, :] * out_row + column[:, None], y.to(out.dtype.element_ty), mask)


def one_row_tiles(width: int, inner: int, gated: bool) -> Tiles:
    if inner <= 1024:
        return Tiles(4, 512 if gated else 1024, 4, 1)
    if gated or width > 1 << 16:
        return Tiles(4 if gated else 2, 512, 2, 1)
    return Tiles(4, 512 if inner <= 8192 else 1024, 4 if inner <= 8192 else 2, 1)


def few_rows_tiles(width: int, itemsize: int, gated: bool, room: int) -> Tiles:
    """Launch sizes within `room` bytes of shared memory."""
    if itemsize == 4:
        return Tiles(32, 32, 4, 2)
    if room < 180_000:
        return Tiles(64, 128, 4, 2)
    if gated or width > 1 << 15:
        return Tiles(64, 128, 4, 3)
    return Tiles(64, 256, 4, 4) if width > 1024 else Tiles(16, 512, 4, 3)


def skinny_gemm(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
    norm_weight: torch.Tensor | None, epsilon: float, gated: bool, tiles: Tiles | None = None,
) -> None:
    rows, inner = x.shape
    width = weight.shape[0] // (2 if gated else 1)
    if rows == 0:
        return
    if any(t.stride(-1) != 1 for t in (out, x, weight) if t.shape[-1] > 1):
        raise ValueError('out, x and weight must have contiguous rows')
    flags = {
        'NORM': norm_weight is not None, 'BIAS': bias is not None, 'GATED': gated, 'RESIDUAL': residual is not None,
    }
    if rows == 1:
        tiles = tiles or one_row_tiles(width, inner, gated)
        one_row_kernel[(triton.cdiv(width, tiles.columns),)](
            out, x, weight, bias, residual, norm_weight, epsilon, width, inner, weight.stride(0), **flags,
            COLUMNS=tiles.columns, INNER=tiles.inner, **early_launch(x), num_warps=tiles.warps, num_stages=tiles.stages,
        )
        return
    tiles = tiles or few_rows_tiles(width, x.element_size(), gated, shared_memory(x.device))
    few_rows_kernel[(triton.cdiv(width, tiles.columns),)](
        out, x, weight, bias, residual, norm_weight, epsilon, rows, width, inner, weight.stride(0), x.stride(0),
        out.stride(0), 0 if residual is None else residual.stride(0), **flags, ROWS=max(16, next_power_of_2(rows)),
        COLUMNS=tiles.columns, INNER=tiles.inner, PRECISION='ieee' if x.dtype == torch.float32 else 'tf32',
        **early_launch(x), num_warps=tiles.warps, num_stages=tiles.stages,
    )
