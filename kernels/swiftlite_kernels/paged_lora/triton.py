"""Paged adapters in Triton: shrink splits the input among programs, expand adds the parts up and multiplies again.

The grids come from shapes alone and unused tiles leave at once, so that a captured launch serves any mix of adapters.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from swiftlite_kernels.paged_lora import LoRARouting
from swiftlite_kernels.triton import begin, early_launch, multiprocessors

RANKS = 16  # ranks of a program's step
COLUMNS = 256  # output columns of an expanding program
WAVES = {16: 12, 64: 6}  # programs of shrink a multiprocessor, by tile


@triton.jit(do_not_specialize=['tokens', 'splits'])
def shrink_kernel(
    part, x, a, adapters, starts, counts, pool_rows, ranks, tokens, splits, inner, x_row, a_slice, a_row, table_row,
    part_row,
    RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Program (tile, slice x rank tile, share of the input): part[share, token, slice, rank]."""
    tile = tl.program_id(0)
    # the routing was written long before the previous kernel
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    s, first_rank = tl.program_id(1) // RANK_TILES, (tl.program_id(1) % RANK_TILES) * RANKS
    rank = tl.load(ranks + adapter)
    r = first_rank + tl.arange(0, RANKS)
    pool = tl.load(pool_rows + adapter * table_row + r, r < rank, other=0).to(tl.int64)
    begin(EARLY)
    if (count == 0) | (first_rank >= rank):
        return
    row = tl.arange(0, TILE)
    token = (start + row).to(tl.int64)
    k = tl.arange(0, STEP)
    share = tl.cdiv(tl.cdiv(inner, splits), STEP) * STEP
    low = tl.program_id(2) * share
    high = tl.minimum(low + share, inner)
    acc = tl.zeros([TILE, RANKS], tl.float32)
    for first in range(low, high, STEP):
        inside = first + k < high
        x_tile = tl.load(
            x + token[:, None] * x_row + (first + k)[None, :], (row < count)[:, None] & inside[None, :], other=0.0
        )
        a_tile = tl.load(
            a + s * a_slice + pool[None, :] * a_row + (first + k)[:, None], (r < rank)[None, :] & inside[:, None],
            other=0.0,
        )
        acc = tl.dot(x_tile, a_tile, acc, input_precision=PRECISION)
    line = tl.program_id(2).to(tl.int64) * tokens + token
    at = part + line[:, None] * part_row + (s * RANK_TILES * RANKS + r)[None, :]
    tl.store(at, acc, (row < count)[:, None])


@triton.jit(do_not_specialize=['tokens', 'splits'])
def expand_kernel(
    y, part, b, adapters, starts, counts, pool_rows, ranks, tokens, splits, n0, n1, n2, n3, y_row, b_row, table_row,
    part_row,
    RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile, columns of a slice): the second axis counts the column tiles of all slices."""
    tile, block = tl.program_id(0), tl.program_id(1)
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    rank = tl.load(ranks + adapter)
    s, offset = 0, 0
    for i in tl.static_range(3):  # which slice the column tile lies in
        n = n0 if i == 0 else n1 if i == 1 else n2
        if (s == i) & (block >= tl.cdiv(n, COLUMNS)):
            block -= tl.cdiv(n, COLUMNS)
            offset += n
            s = i + 1
    width = tl.where(s == 0, n0, tl.where(s == 1, n1, tl.where(s == 2, n2, n3)))
    begin(EARLY)
    if count == 0:
        return
    row, column = tl.arange(0, TILE), block * COLUMNS + tl.arange(0, COLUMNS)
    token = (start + row).to(tl.int64)
    live, inside = row < count, column < width
    acc = tl.zeros([TILE, COLUMNS], tl.float32)
    for first in range(0, rank, RANKS):
        r = first + tl.arange(0, RANKS)
        pool = tl.load(pool_rows + adapter * table_row + r, r < rank, other=0).to(tl.int64)
        b_tile = tl.load(
            b + pool[:, None] * b_row + (offset + column)[None, :], (r < rank)[:, None] & inside[None, :], other=0.0
        )
        at = part + token[:, None] * part_row + (s * RANK_TILES * RANKS + r)[None, :]
        mask = live[:, None] & (r < rank)[None, :]
        shrunk = tl.zeros([TILE, RANKS], tl.float32)
        for _ in range(splits):
            shrunk += tl.load(at, mask, other=0.0)
            at += tl.cast(tokens, tl.int64) * part_row
        acc = tl.dot(shrunk.to(b_tile.dtype), b_tile, acc, input_precision=PRECISION)
    at = y + token[:, None] * y_row + (offset + column)[None, :]
    mask = live[:, None] & inside[None, :]
    old = tl.load(at, mask, other=0.0)
    added = acc.to(y.dtype.element_ty).to(tl.float32)
    tl.store(at, (old.to(tl.float32) + added).to(y.dtype.element_ty), mask)


def add_lora(
    y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, widths: Sequence[int], routing: LoRARouting
) -> None:
    (tokens, inner), tiles, slices = x.shape, routing.adapters.shape[0], len(widths)
    if tokens == 0 or tiles == 0:
        return
    rank_tiles = triton.cdiv(routing.pool_rows.shape[1], RANKS)
    step = 64 if x.dtype == torch.float32 else 256 if routing.tile <= 16 else 128
    wanted = WAVES.get(routing.tile, 6) * multiprocessors(x.device) // (tiles * slices)
    splits = max(1, min(wanted, triton.cdiv(inner, step)))
    part = torch.empty(splits, tokens, slices * rank_tiles * RANKS, dtype=torch.float32, device=x.device)
    shared = (
        routing.adapters, routing.starts, routing.counts, routing.pool_rows, routing.ranks, tokens, splits,
    )
    options = {
        'RANK_TILES': rank_tiles, 'TILE': routing.tile, 'RANKS': RANKS,
        'PRECISION': 'ieee' if x.dtype == torch.float32 else 'tf32', **early_launch(x),
    }
    shrink_kernel[(tiles, slices * rank_tiles, splits)](
        part, x, a, *shared, inner, x.stride(0), a.stride(0), a.stride(1), routing.pool_rows.stride(0), part.stride(1),
        **options, STEP=step, num_warps=4, num_stages=3,
    )
    padded = [*widths, 0, 0, 0][:4]
    blocks = sum(triton.cdiv(n, COLUMNS) for n in widths)
    expand_kernel[(tiles, blocks)](
        y, part, b, *shared, *padded, y.stride(0), b.stride(0), routing.pool_rows.stride(0), part.stride(1),
        **options, COLUMNS=COLUMNS, num_warps=4 if routing.tile <= 16 else 8, num_stages=2,
    )
