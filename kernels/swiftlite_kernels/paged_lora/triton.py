"""Paged adapters in Triton: shrink splits the input among programs, expanding adds the parts up and multiplies again.

The grids come from shapes alone and unused tiles leave at once, so that a captured launch serves any mix of adapters.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from swiftlite_kernels.paged_lora import LoRARouting
from swiftlite_kernels.triton import begin, divide, early_launch, exp, multiprocessors

RANKS = 16  # ranks of a program's step
COLUMNS = 256  # output columns of an expanding program
ONE_ROW_SPLITS = 16  # most parts of a single token, which are added up by every program of the next kernel
WAVES = {16: 12, 64: 6}  # programs of shrink a multiprocessor, by tile


@triton.jit(do_not_specialize=['tokens', 'splits'])
def shrink_kernel(
    part, x, a, norm_weight, adapters, starts, counts, pool_rows, ranks, tokens, splits, inner, x_row, a_slice, a_row,
    table_row, part_row,
    NORM: tl.constexpr, RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr, STEP: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
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
        if NORM:
            weight = tl.load(norm_weight + first + k, inside, other=0.0).to(tl.float32)
            x_tile = (x_tile.to(tl.float32) * weight[None, :]).to(x.dtype.element_ty)
        a_tile = tl.load(
            a + s * a_slice + pool[None, :] * a_row + (first + k)[:, None], (r < rank)[None, :] & inside[:, None],
            other=0.0,
        )
        acc = tl.dot(x_tile, a_tile, acc, input_precision=PRECISION)
    line = tl.program_id(2).to(tl.int64) * tokens + token
    at = part + line[:, None] * part_row + (s * RANK_TILES * RANKS + r)[None, :]
    tl.store(at, acc, (row < count)[:, None])


@triton.jit
def product(
    shrunk, live, columns, inside, table, rank, part_size, splits, b_row,
    TILE: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):
    """An adapter's share of a tile: the parts of `shrunk`, pointers [TILE, 1], added up, times `columns` of B."""
    acc = tl.zeros([TILE, COLUMNS], tl.float32)
    for first in range(0, rank, RANKS):
        r = first + tl.arange(0, RANKS)
        pool = tl.load(table + r, r < rank, other=0).to(tl.int64)
        b_tile = tl.load(columns + pool[:, None] * b_row, (r < rank)[:, None] & inside[None, :], other=0.0)
        at = shrunk + r[None, :]
        mask = live[:, None] & (r < rank)[None, :]
        half = tl.zeros([TILE, RANKS], tl.float32)
        for _ in range(splits):
            half += tl.load(at, mask, other=0.0)
            at += part_size
        acc = tl.dot(half.to(b_tile.dtype), b_tile, acc, input_precision=PRECISION)
    return acc


@triton.jit
def add_rounded(old, added):
    """As if the adapter's output had been stored before it was added."""
    return (old.to(tl.float32) + added.to(old.dtype).to(tl.float32)).to(old.dtype)


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
    if (count == 0) | (rank == 0):
        return
    row, column = tl.arange(0, TILE), block * COLUMNS + tl.arange(0, COLUMNS)
    token = (start + row).to(tl.int64)
    live, inside = row < count, column < width
    added = product(
        part + token[:, None] * part_row + (s * RANK_TILES * RANKS), live, b + (offset + column)[None, :], inside,
        pool_rows + adapter * table_row, rank, tl.cast(tokens, tl.int64) * part_row, splits, b_row,
        TILE, RANKS, COLUMNS, PRECISION,
    )
    at = y + token[:, None] * y_row + (offset + column)[None, :]
    mask = live[:, None] & inside[None, :]
    old = tl.load(at, mask, other=0.0)
    tl.store(at, add_rounded(old, added), mask)


@triton.jit(do_not_specialize=['tokens', 'splits'])
def gate_kernel(
    out, y, part, b, adapters, starts, counts, pool_rows, ranks, tokens, splits, width, out_row, y_row, b_row,
    table_row, part_row,
    RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile, columns): both halves of y with their adapters, gated."""
    tile, block = tl.program_id(0), tl.program_id(1)
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    rank = tl.load(ranks + adapter)
    begin(EARLY)
    if count == 0:
        return
    row, column = tl.arange(0, TILE), block * COLUMNS + tl.arange(0, COLUMNS)
    token = (start + row).to(tl.int64)
    live, inside = row < count, column < width
    mask = live[:, None] & inside[None, :]
    at = y + token[:, None] * y_row + column[None, :]
    gate = tl.load(at, mask, other=0.0)
    up = tl.load(at + width, mask, other=0.0)
    if rank > 0:
        shrunk = part + token[:, None] * part_row
        other = tl.cast(tokens, tl.int64) * part_row
        table = pool_rows + adapter * table_row
        columns = b + column[None, :]
        added = product(
            shrunk, live, columns, inside, table, rank, other, splits, b_row, TILE, RANKS, COLUMNS, PRECISION
        )
        gate = add_rounded(gate, added)
        added = product(
            shrunk + RANK_TILES * RANKS, live, columns + width, inside, table, rank, other, splits, b_row, TILE, RANKS,
            COLUMNS, PRECISION,
        )
        up = add_rounded(up, added)
    wide = gate.to(tl.float32)
    active = divide(wide, 1 + exp(-wide)).to(y.dtype.element_ty).to(tl.float32)
    result = (active * up.to(tl.float32)).to(out.dtype.element_ty)
    tl.store(out + token[:, None] * out_row + column[None, :], result, mask)


def shrink(x: torch.Tensor, a: torch.Tensor, routing: LoRARouting, norm_weight: torch.Tensor | None) -> torch.Tensor:
    (tokens, inner), tiles, slices = x.shape, routing.adapters.shape[0], a.shape[0]
    rank_tiles = triton.cdiv(routing.pool_rows.shape[1], RANKS)
    step = 64 if x.dtype == torch.float32 else 256 if routing.tile <= 16 else 128
    wanted = WAVES.get(routing.tile, 6) * multiprocessors(x.device) // max(tiles * slices, 1)
    splits = max(1, min(wanted, triton.cdiv(inner, step), ONE_ROW_SPLITS if tokens == 1 else wanted))
    part = torch.empty(splits, tokens, slices * rank_tiles * RANKS, dtype=torch.float32, device=x.device)
    if tokens and tiles:
        shrink_kernel[(tiles, slices * rank_tiles, splits)](
            part, x, a, norm_weight, routing.adapters, routing.starts, routing.counts, routing.pool_rows, routing.ranks,
            tokens, splits, inner, x.stride(0), a.stride(0), a.stride(1), routing.pool_rows.stride(0), part.stride(1),
            NORM=norm_weight is not None, STEP=step, **sizes(x, routing), num_warps=4, num_stages=3,
        )
    return part


def expand(
    y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, widths: Sequence[int], routing: LoRARouting
) -> None:
    tokens, tiles = y.shape[0], routing.adapters.shape[0]
    if tokens == 0 or tiles == 0:
        return
    padded = [*widths, 0, 0, 0][:4]
    blocks = sum(triton.cdiv(n, COLUMNS) for n in widths)
    expand_kernel[(tiles, blocks)](
        y, shrunk, b, routing.adapters, routing.starts, routing.counts, routing.pool_rows, routing.ranks, tokens,
        shrunk.shape[0], *padded, y.stride(0), b.stride(0), routing.pool_rows.stride(0), shrunk.stride(1),
        COLUMNS=COLUMNS, **sizes(y, routing), num_warps=4 if routing.tile <= 16 else 8, num_stages=2,
    )


def expand_silu_and_mul(
    out: torch.Tensor, y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, routing: LoRARouting
) -> None:
    tokens, tiles, width = y.shape[0], routing.adapters.shape[0], out.shape[1]
    if tokens == 0 or tiles == 0:
        return
    columns = COLUMNS if routing.tile <= 16 else COLUMNS // 2
    gate_kernel[(tiles, triton.cdiv(width, columns))](
        out, y, shrunk, b, routing.adapters, routing.starts, routing.counts, routing.pool_rows, routing.ranks, tokens,
        shrunk.shape[0], width, out.stride(0), y.stride(0), b.stride(0), routing.pool_rows.stride(0), shrunk.stride(1),
        COLUMNS=columns, **sizes(y, routing), num_warps=4 if routing.tile <= 16 else 8, num_stages=2,
    )


def sizes(x: torch.Tensor, routing: LoRARouting) -> dict[str, int | str | bool]:
    """Launch options that the kernels share."""
    return {
        'RANK_TILES': triton.cdiv(routing.pool_rows.shape[1], RANKS), 'TILE': max(16, routing.tile), 'RANKS': RANKS,
        'PRECISION': 'ieee' if x.dtype == torch.float32 else 'tf32', **early_launch(x),
    }
