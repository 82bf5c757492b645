"""Paged adapters in Triton: shrink splits the input among programs, expanding adds the parts up and multiplies again.

The grids come from shapes alone and unused tiles leave at once (but the first, which waits), so that a captured launch
serves any mix of adapters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from swiftlite_kernels.paged_lora import Expansion, LoRARouting
from swiftlite_kernels.triton import begin, begin_first, early_launch, multiprocessors, silu

RANKS = 16  # ranks of a program's step
TILE_ROWS = 8  # fewest rows of a product
FEW_PARTS, MANY_PARTS = 4, 16  # of a shrunk input, all of which every expanding program adds up
LONG = 8192  # inner elements from which many pay


@dataclass(frozen=True)
class Tiles:
    """Launch sizes for one size of tile."""

    waves: int  # programs of shrink a multiprocessor
    columns: int  # of a program of expand_kernel
    warps: int
    gate_columns: int  # of a step of gate_kernel
    gate_span: int  # its steps
    gate_warps: int


BY_TILE = {8: Tiles(12, 512, 4, 128, 2, 4), 16: Tiles(12, 512, 4, 128, 4, 4), 64: Tiles(6, 128, 8, 128, 4, 4)}


@triton.jit
def tokens_of(order, start, row, count, ORDER: tl.constexpr):
    """Tokens of a tile's rows."""
    if ORDER:
        return tl.load(order + start + row, row < count, other=0).to(tl.int64)
    return (start + row).to(tl.int64)


@triton.jit(do_not_specialize=['tokens', 'splits'])
def shrink_kernel(
    part, x, a, norm_weight, adapters, starts, counts, order, pool_rows, ranks, tokens, splits, inner, x_row,
    a_slice, a_row, table_row, part_row,
    NORM: tl.constexpr, ORDER: tl.constexpr, RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr,
    STEP: tl.constexpr, PRECISION: tl.constexpr, FIRST: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile, slice x rank tile, share of the input): part[share, token, slice, rank]."""
    tile = tl.program_id(0)
    # the routing was written long before the previous kernel
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    if (count == 0) & (tile > 0):
        return
    s, first_rank = tl.program_id(1) // RANK_TILES, (tl.program_id(1) % RANK_TILES) * RANKS
    rank = tl.load(ranks + adapter)
    r = first_rank + tl.arange(0, RANKS)
    # not masked by the rank, which would have to be there first
    pool = tl.load(pool_rows + adapter * table_row + r, r < table_row, other=0).to(tl.int64)
    if FIRST:
        begin_first(EARLY)
    else:
        begin(EARLY)
    if (count == 0) | (first_rank >= rank):
        return
    row = tl.arange(0, TILE)
    token = tokens_of(order, start, row, count, ORDER)
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
def sum_parts(
    shrunk, live, first, rank, part_size, splits, TILE: tl.constexpr, RANKS: tl.constexpr, PARTS: tl.constexpr,
):
    """Ranks [first, first + RANKS) of a tile's first halves, [TILE, RANKS]; shrunk: pointers [TILE]."""
    part, r = tl.arange(0, PARTS)[:, None, None], first + tl.arange(0, RANKS)
    mask = (part < splits) & live[None, :, None] & (r < rank)[None, None, :]
    return tl.sum(tl.load(shrunk[None, :, None] + part * part_size + r[None, None, :], mask, other=0.0), 0)


@triton.jit
def ranks_of(columns, inside, table, first, room, rank, b_row, RANKS: tl.constexpr):
    """Ranks [first, first + RANKS) of B: `columns`, pointers [1, COLUMNS] to the pool's first row."""
    r = first + tl.arange(0, RANKS)
    pool = tl.load(table + r, r < room, other=0).to(tl.int64)  # not masked by the rank, to have it sooner
    return tl.load(columns + pool[:, None] * b_row, (r < rank)[:, None] & inside[None, :], other=0.0)


@triton.jit
def product(
    half, b_tile, shrunk, live, columns, inside, table, room, rank, part_size, splits, b_row,
    RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
):
    """An adapter's share of a tile, [TILE, COLUMNS]: first halves times B; half, b_tile: those of its first RANKS."""
    acc = tl.dot(half.to(b_tile.dtype), b_tile, input_precision=PRECISION)
    if RANK_TILES > 1:
        for first in range(RANKS, rank, RANKS):
            b_tile = ranks_of(columns, inside, table, first, room, rank, b_row, RANKS)
            half = sum_parts(shrunk, live, first, rank, part_size, splits, TILE, RANKS, PARTS)
            acc = tl.dot(half.to(b_tile.dtype), b_tile, acc, input_precision=PRECISION)
    return acc


@triton.jit
def add_rounded(old, added):
    """As if the adapter's output had been stored before it was added."""
    return (old.to(tl.float32) + added.to(old.dtype).to(tl.float32)).to(old.dtype)


@triton.jit(do_not_specialize=['tokens', 'splits'])
def expand_kernel(
    y, part, b, adapters, starts, counts, order, pool_rows, ranks, tokens, splits, n0, n1, n2, n3, y_row, b_row,
    b_column, table_row, part_row,
    ORDER: tl.constexpr, RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr, PARTS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile, columns of a slice): the second axis counts the column tiles of all slices."""
    tile, block = tl.program_id(0), tl.program_id(1)
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    if (count == 0) & (tile > 0):
        return
    rank = tl.load(ranks + adapter)
    s, offset = 0, 0
    for i in tl.static_range(3):  # which slice the column tile lies in
        n = n0 if i == 0 else n1 if i == 1 else n2
        if (s == i) & (block >= tl.cdiv(n, COLUMNS)):
            block -= tl.cdiv(n, COLUMNS)
            offset += n
            s = i + 1
    width = tl.where(s == 0, n0, tl.where(s == 1, n1, tl.where(s == 2, n2, n3)))
    row, column = tl.arange(0, TILE), block * COLUMNS + tl.arange(0, COLUMNS)
    live, inside = row < count, column < width
    table, columns = pool_rows + adapter * table_row, b + (offset + column)[None, :] * b_column
    b_tile = ranks_of(columns, inside, table, 0, table_row, rank, b_row, RANKS)  # waits for nobody
    begin(EARLY)
    if (count == 0) | (rank == 0):
        return
    token = tokens_of(order, start, row, count, ORDER)
    part_size = tl.cast(tokens, tl.int64) * part_row
    shrunk = part + token * part_row + s * RANK_TILES * RANKS
    half = sum_parts(shrunk, live, 0, rank, part_size, splits, TILE, RANKS, PARTS)
    added = product(
        half, b_tile, shrunk, live, columns, inside, table, table_row, rank, part_size, splits, b_row, RANK_TILES, TILE,
        RANKS, PARTS, PRECISION,
    )
    at = y + token[:, None] * y_row + (offset + column)[None, :]
    mask = live[:, None] & inside[None, :]
    old = tl.load(at, mask, other=0.0)
    tl.store(at, add_rounded(old, added), mask)


@triton.jit(do_not_specialize=['tokens', 'splits'])
def gate_kernel(
    out, y, part, b, adapters, starts, counts, pool_rows, ranks, tokens, splits, width, out_row, y_row, b_row,
    table_row, part_row,
    RANK_TILES: tl.constexpr, TILE: tl.constexpr, RANKS: tl.constexpr, PARTS: tl.constexpr, COLUMNS: tl.constexpr,
    SPAN: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile, SPAN runs of columns): both halves of y with their adapters, gated."""
    tile, span = tl.program_id(0), tl.program_id(1)
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    if (count == 0) & (tile > 0):
        return
    rank = tl.load(ranks + adapter)
    row = tl.arange(0, TILE)
    token = (start + row).to(tl.int64)
    live = row < count
    table, part_size = pool_rows + adapter * table_row, tl.cast(tokens, tl.int64) * part_row
    column = span * SPAN * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    gate_b = ranks_of(b + column[None, :], inside, table, 0, table_row, rank, b_row, RANKS)  # waits for nobody
    up_b = ranks_of(b + (width + column)[None, :], inside, table, 0, table_row, rank, b_row, RANKS)
    begin(EARLY)
    if count == 0:
        return
    gates = part + token * part_row
    ups = gates + RANK_TILES * RANKS
    gate_half = sum_parts(gates, live, 0, rank, part_size, splits, TILE, RANKS, PARTS)
    up_half = sum_parts(ups, live, 0, rank, part_size, splits, TILE, RANKS, PARTS)
    for step in tl.static_range(SPAN):
        if step > 0:
            column += COLUMNS
            inside = column < width
            gate_b = ranks_of(b + column[None, :], inside, table, 0, table_row, rank, b_row, RANKS)
            up_b = ranks_of(b + (width + column)[None, :], inside, table, 0, table_row, rank, b_row, RANKS)
        mask = live[:, None] & inside[None, :]
        at = y + token[:, None] * y_row + column[None, :]
        gate = tl.load(at, mask, other=0.0)
        up = tl.load(at + width, mask, other=0.0)
        added = product(
            gate_half, gate_b, gates, live, b + column[None, :], inside, table, table_row, rank, part_size, splits,
            b_row, RANK_TILES, TILE, RANKS, PARTS, PRECISION,
        )
        gate = add_rounded(gate, added)
        added = product(
            up_half, up_b, ups, live, b + (width + column)[None, :], inside, table, table_row, rank, part_size, splits,
            b_row, RANK_TILES, TILE, RANKS, PARTS, PRECISION,
        )
        up = add_rounded(up, added)
        active = silu(gate.to(tl.float32), y.dtype.element_ty == tl.float32).to(y.dtype.element_ty).to(tl.float32)
        result = (active * up.to(tl.float32)).to(out.dtype.element_ty)
        tl.store(out + token[:, None] * out_row + column[None, :], result, mask)


def shrink(x: torch.Tensor, a: torch.Tensor, routing: LoRARouting, norm_weight: torch.Tensor | None) -> torch.Tensor:
    (tokens, inner), tiles, slices = x.shape, routing.adapters.shape[0], a.shape[0]
    rank_tiles = triton.cdiv(routing.pool_rows.shape[1], RANKS)
    step = 64 if x.dtype == torch.float32 else 256 if routing.tile <= 16 else 128
    by = tiles_of(routing)
    wanted = by.waves * multiprocessors(x.device) // max(tiles * slices, 1)
    most = MANY_PARTS if tokens == 1 or (inner >= LONG and routing.tile <= 16) else FEW_PARTS
    splits = max(1, min(wanted, triton.cdiv(inner, step), most))
    part = torch.empty(splits, tokens, slices * rank_tiles * RANKS, dtype=torch.float32, device=x.device)
    if tokens and tiles:
        shrink_kernel[(tiles, slices * rank_tiles, splits)](
            part, x, a, norm_weight, routing.adapters, routing.starts, routing.counts, routing.order, routing.pool_rows,
            routing.ranks, tokens, splits, inner, x.stride(0), a.stride(0), a.stride(1), routing.pool_rows.stride(0),
            part.stride(1), NORM=norm_weight is not None, ORDER=routing.order is not None, STEP=step,
            FIRST=tokens == 1, **sizes(x, routing), num_warps=4, num_stages=3,  # gemv works beside it
        )
    return part


def expand(
    y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, widths: Sequence[int], routing: LoRARouting
) -> None:
    tokens, tiles = y.shape[0], routing.adapters.shape[0]
    if tokens == 0 or tiles == 0:
        return
    padded = [*widths, 0, 0, 0][:4]
    by = tiles_of(routing)
    blocks = sum(triton.cdiv(n, by.columns) for n in widths)
    expand_kernel[(tiles, blocks)](
        y, shrunk, b, routing.adapters, routing.starts, routing.counts, routing.order, routing.pool_rows, routing.ranks,
        tokens, shrunk.shape[0], *padded, y.stride(0), b.stride(0), b.stride(1), routing.pool_rows.stride(0),
        shrunk.stride(1), ORDER=routing.order is not None, PARTS=parts_of(shrunk), COLUMNS=by.columns,
        **sizes(y, routing), num_warps=by.warps, num_stages=2,
    )


def expand_silu_and_mul(
    out: torch.Tensor, y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, routing: LoRARouting
) -> None:
    tokens, tiles, width = y.shape[0], routing.adapters.shape[0], out.shape[1]
    if tokens == 0 or tiles == 0:
        return
    by = tiles_of(routing)
    gate_kernel[(tiles, triton.cdiv(width, by.gate_columns * by.gate_span))](
        out, y, shrunk, b, routing.adapters, routing.starts, routing.counts, routing.pool_rows, routing.ranks, tokens,
        shrunk.shape[0], width, out.stride(0), y.stride(0), b.stride(0), routing.pool_rows.stride(0), shrunk.stride(1),
        PARTS=parts_of(shrunk), COLUMNS=by.gate_columns, SPAN=by.gate_span, **sizes(y, routing),
        num_warps=by.gate_warps, num_stages=2,
    )


def tiles_of(routing: LoRARouting) -> Tiles:
    return next(sizes for tile, sizes in BY_TILE.items() if routing.tile <= tile or tile == max(BY_TILE))


def parts_of(shrunk: torch.Tensor) -> int:
    """Room for parts in a program: two sizes, so that few kernels are compiled."""
    return FEW_PARTS if shrunk.shape[0] <= FEW_PARTS else MANY_PARTS


def fits(lora: Expansion) -> bool:
    """Whether the kernel that reads the output may take the expansion in: for more it would take longer than both."""
    return lora.routing.tile <= TILE_ROWS and lora.routing.pool_rows.shape[1] <= RANKS


def sizes(x: torch.Tensor, routing: LoRARouting) -> dict[str, int | str | bool]:
    """Launch options that the kernels share."""
    # tiles by an order are made on the device, by the previous kernel at the latest: they have to be waited for
    early = early_launch(x) if routing.order is None else {'EARLY': False}
    return {
        'RANK_TILES': triton.cdiv(routing.pool_rows.shape[1], RANKS), 'TILE': max(TILE_ROWS, routing.tile),
        'RANKS': RANKS, 'PRECISION': 'ieee' if x.dtype == torch.float32 else 'tf32', **early,
    }
