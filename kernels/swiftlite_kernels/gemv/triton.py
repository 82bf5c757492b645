"""A weight times one row in Triton: a program sums a few columns on the ordinary cores.

The norm costs no pass of its own: its scale leaves the sum, so squares are added up beside the products. The first
part of the weight is asked for before the previous kernel's result is waited for. What an adapter adds is waited for at
the end: it is computed beside the product.
"""

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl

from swiftlite_kernels.paged_lora import Expansion
from swiftlite_kernels.paged_lora.triton import MANY_PARTS
from swiftlite_kernels.triton import begin, begin_beside, early_launch, next_power_of_2, silu, wait

REGISTERS = {2: 80, 4: 56, 8: 32}  # by warps, with an adapter: as many programs at once as without


@dataclass(frozen=True)
class Tiles:
    """Sizes of one launch: output columns and inner elements of a program's step."""

    columns: int
    inner: int
    warps: int


@triton.jit
def add_step(acc, up, squares, tile, other, x, norm_weight, k, inner, NORM: tl.constexpr, GATED: tl.constexpr):
    """Products of one step of the weight with inner elements k."""
    value = tl.load(x + k, k < inner, other=0.0).to(tl.float32)
    if NORM:
        squares += value * value
        value *= tl.load(norm_weight + k, k < inner, other=0.0).to(tl.float32)
    acc += tile.to(tl.float32) * value[None, :]
    if GATED:
        up += other.to(tl.float32) * value[None, :]
    return acc, up, squares


@triton.jit
def parts_of(shrunk, rank, splits, part_size, SPLITS: tl.constexpr, RANKS: tl.constexpr):
    """The row's products with A of one slice, in parts: [SPLITS, RANKS]."""
    split, r = tl.arange(0, SPLITS)[:, None], tl.arange(0, RANKS)
    mask = (split < splits) & (r < rank)[None, :]
    return tl.load(shrunk + split * part_size + r[None, :], mask, other=0.0)


@triton.jit(do_not_specialize=['splits'])
def gemv_kernel(
    out, x, weight, bias, residual, norm_weight, epsilon, width, inner, weight_row,
    shrunk, b, adapters, pool_rows, ranks, splits, n0, n1, slice_size, part_size, b_row, table_row,
    NORM: tl.constexpr, BIAS: tl.constexpr, GATED: tl.constexpr, RESIDUAL: tl.constexpr, LORA: tl.constexpr,
    SPLITS: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr, INNER: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (COLUMNS columns of a slice); `other` and `up` belong to the second half of a gated weight."""
    column, k = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, INNER)
    live = column < width
    at = weight + column.to(tl.int64)[:, None] * weight_row + k[None, :]
    partner = at + tl.cast(width, tl.int64) * weight_row
    mask = live[:, None] & (k < inner)[None, :]
    tile = tl.load(at, mask, other=0.0)  # the weight waits for nobody
    other = tl.load(partner, mask, other=0.0) if GATED else tile
    if LORA:
        adapter = tl.load(adapters)
        rank, r = tl.load(ranks + adapter), tl.arange(0, RANKS)
        pool = tl.load(pool_rows + adapter * table_row + r, r < table_row, other=0).to(tl.int64)
        b_at = b + pool[None, :] * b_row + column[:, None]
        has = live[:, None] & (r < rank)[None, :]
        b_tile = tl.load(b_at, has, other=0.0)
        b_other = tl.load(b_at + width, has, other=0.0) if GATED else b_tile
        begin_beside(EARLY, adapters)  # x was written before shrink's launch
    else:
        begin(EARLY)
    acc = tl.zeros([COLUMNS, INNER], tl.float32)
    up = tl.zeros([COLUMNS, INNER], tl.float32)
    squares = tl.zeros([INNER], tl.float32)
    acc, up, squares = add_step(acc, up, squares, tile, other, x, norm_weight, k, inner, NORM, GATED)
    for first in range(INNER, inner, INNER):
        mask = live[:, None] & (first + k < inner)[None, :]
        tile = tl.load(at + first, mask, other=0.0)
        other = tl.load(partner + first, mask, other=0.0) if GATED else tile
        acc, up, squares = add_step(acc, up, squares, tile, other, x, norm_weight, first + k, inner, NORM, GATED)
    if LORA:
        wait(EARLY)
        low = tl.program_id(0) * COLUMNS
        at_parts = shrunk + ((low >= n0).to(tl.int32) + (low >= n0 + n1).to(tl.int32)) * slice_size
        parts = parts_of(at_parts, rank, splits, part_size, SPLITS, RANKS)
        up_parts = parts_of(at_parts + slice_size, rank, splits, part_size, SPLITS, RANKS) if GATED else parts
    y, z = tl.sum(acc, 1), tl.sum(up, 1)
    if LORA:
        y += tl.sum(tl.sum(parts, 0)[None, :] * b_tile.to(tl.float32), 1)
        if GATED:
            z += tl.sum(tl.sum(up_parts, 0)[None, :] * b_other.to(tl.float32), 1)
    if NORM:
        scale = tl.rsqrt(tl.sum(squares, 0) / inner + epsilon)
        y, z = y * scale, z * scale
    if BIAS:
        y += tl.load(bias + column, live, other=0.0).to(tl.float32)
    if GATED:
        if BIAS:
            z += tl.load(bias + width + column, live, other=0.0).to(tl.float32)
        y = silu(y, out.dtype.element_ty == tl.float32) * z
    if RESIDUAL:
        y += tl.load(residual + column, live, other=0.0).to(tl.float32)
    tl.store(out + column, y.to(out.dtype.element_ty), live)


def gemv_tiles(width: int, inner: int, gated: bool) -> Tiles:
    """Launch sizes, from measurements on an H200."""
    if gated:
        return Tiles(4, 256, 2)
    if width > 1 << 16:
        return Tiles(8, 512, 4) if inner > 1024 else Tiles(8, 128, 2)
    if inner <= 1024:
        return Tiles(4, 1024, 2)
    if width <= 1024:
        return Tiles(2, 2048, 8)
    return Tiles(4, 512, 4 if inner <= 8192 else 8)


def gemv(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, residual: torch.Tensor | None,
    norm_weight: torch.Tensor | None, epsilon: float, gated: bool, lora: Expansion | None = None,
    tiles: Tiles | None = None,
) -> None:
    if any(t.stride(-1) != 1 for t in (out, x, weight) if t.shape[-1] > 1):
        raise ValueError('out, x and weight must have contiguous rows')
    inner, width = x.shape[1], weight.shape[0] // (2 if gated else 1)
    tiles = tiles or gemv_tiles(width, inner, gated)
    adapter: tuple[object, ...] = (None,) * 5 + (0,) * 7
    splits = ranks = 1
    if lora is not None:
        at, splits, ranks = lora.routing, lora.shrunk.shape[0], next_power_of_2(lora.routing.pool_rows.shape[1])
        n0, n1 = (*lora.widths, 0)[:2]
        slice_size = lora.shrunk.shape[2] // len(lora.widths)
        while any(n % tiles.columns for n in lora.widths):  # a program's columns lie in one slice
            tiles = replace(tiles, columns=tiles.columns // 2)
        adapter = (
            lora.shrunk, lora.b, at.adapters, at.pool_rows, at.ranks, splits, n0, n1, slice_size, lora.shrunk.stride(0),
            lora.b.stride(0), at.pool_rows.stride(0),
        )
    gemv_kernel[(triton.cdiv(width, tiles.columns),)](
        out, x, weight, bias, residual, norm_weight, epsilon, width, inner, weight.stride(0), *adapter,
        NORM=norm_weight is not None, BIAS=bias is not None, GATED=gated, RESIDUAL=residual is not None,
        LORA=lora is not None, SPLITS=MANY_PARTS, RANKS=max(ranks, 8), COLUMNS=tiles.columns, INNER=tiles.inner,
        **early_launch(x), num_warps=tiles.warps,
        maxnreg=REGISTERS.get(tiles.warps) if lora is not None else None,
    )
