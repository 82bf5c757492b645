"""RMSNorm in Triton: a program a row, or a few short rows; one read and one write of each element.

With adapters to be added first, a program takes a few tokens of a tile (paged_lora) and holds their B in registers.
"""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.paged_lora import Expansion
from swiftlite_kernels.paged_lora.triton import RANKS, add_rounded, expand, fits, parts_of, sum_parts
from swiftlite_kernels.triton import as_rows, begin, early_launch, next_power_of_2

SHORT = 1024  # elements a program takes on when rows are short
HELD = 4096  # columns of B up to which a program holds it
HELD_ROWS = 2  # tokens of such a program


@triton.jit(do_not_specialize=['rows', 'inner'])
def norm_kernel(
    out, x, residual, weight, rows, inner, hidden, epsilon,
    out_outer, out_inner, x_outer, x_inner, residual_outer, residual_inner,
    ADD: tl.constexpr, WEIGHTED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = tl.arange(0, BLOCK)[None, :]
    mask = (row < rows) & (column < hidden)
    outer, place = row // inner, row % inner
    value = tl.load(x + outer * x_outer + place * x_inner + column, mask, other=0.0)
    if ADD:
        at = residual + outer * residual_outer + place * residual_inner + column
        before = tl.load(at, mask, other=0.0)
        value = (value.to(tl.float32) + before.to(tl.float32)).to(before.dtype)
        tl.store(at, value, mask)
    wide = value.to(tl.float32)
    mean = tl.sum(wide * wide, 1) / hidden
    normal = (wide * tl.rsqrt(mean + epsilon)[:, None]).to(value.dtype)
    if WEIGHTED:
        scale = tl.load(weight + column, column < hidden, other=0.0)
        normal = normal.to(tl.float32) * scale.to(tl.float32)
    tl.store(out + outer * out_outer + place * out_inner + column, normal.to(out.dtype.element_ty), mask)


@triton.jit
def held_ranks(b, inside, column, table, first, room, rank, b_row, RANKS: tl.constexpr):
    """Ranks [first, first + RANKS) of B, [1, RANKS, COLUMNS]: of three axes, to be multiplied where they lie."""
    r = first + tl.arange(0, RANKS)
    pool = tl.load(table + r, r < room, other=0).to(tl.int64)  # not masked by the rank, to have it sooner
    has = (r < rank)[None, :, None] & inside[None, None, :]
    return tl.load(b + pool[None, :, None] * b_row + column[None, None, :], has, other=0.0)


@triton.jit
def held_product(half, b_tile):
    """[ROWS, RANKS] times held_ranks: [ROWS, COLUMNS] in fp32."""
    return tl.sum(half.to(b_tile.dtype).to(tl.float32)[:, :, None] * b_tile.to(tl.float32), 1)


@triton.jit(do_not_specialize=['tokens', 'splits'])
def adapter_kernel(
    x, residual, weight, part, b, adapters, starts, counts, pool_rows, ranks, tokens, splits, hidden, epsilon, x_row,
    residual_row, b_row, table_row, part_row,
    WEIGHTED: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Program (tile, ROWS of its tokens): ordinary cores multiply with B, which is asked for before the wait."""
    tile, first = tl.program_id(0), tl.program_id(1) * ROWS
    count, start, adapter = tl.load(counts + tile), tl.load(starts + tile), tl.load(adapters + tile)
    if (count <= first) & (tile + first > 0):
        return
    rank = tl.load(ranks + adapter)
    column = tl.arange(0, BLOCK)
    inside = column < hidden
    table = pool_rows + adapter * table_row
    b_low = held_ranks(b, inside, column, table, 0, table_row, rank, b_row, HALF)
    b_high = held_ranks(b, inside, column, table, HALF, table_row, rank, b_row, HALF)
    begin(EARLY)
    row = first + tl.arange(0, ROWS)
    live = row < count
    token, part_size = (start + row).to(tl.int64), tl.cast(tokens, tl.int64) * part_row
    shrunk, mask = part + token * part_row, live[:, None] & inside[None, :]
    at = x + token[:, None] * x_row + column[None, :]
    at_residual = residual + token[:, None] * residual_row + column[None, :]
    value = tl.load(at, mask, other=0.0)
    added = tl.zeros([ROWS, BLOCK], tl.float32)
    # by halves: all of B in fp32 would not fit beside it
    added += held_product(sum_parts(shrunk, live, 0, rank, part_size, splits, ROWS, HALF, PARTS), b_low)
    added += held_product(sum_parts(shrunk, live, HALF, rank, part_size, splits, ROWS, HALF, PARTS), b_high)
    before = tl.load(at_residual, mask, other=0.0)  # after the product, for its registers
    value = add_rounded(value, added)
    value = (value.to(tl.float32) + before.to(tl.float32)).to(before.dtype)
    tl.store(at_residual, value, mask)
    wide = value.to(tl.float32)
    mean = tl.sum(wide * wide, 1) / hidden
    normal = (wide * tl.rsqrt(mean + epsilon)[:, None]).to(value.dtype)
    if WEIGHTED:
        normal = normal.to(tl.float32) * tl.load(weight + column, inside, other=0.0).to(tl.float32)[None, :]
    tl.store(at, normal.to(x.dtype.element_ty), mask)


def launch(
    out: torch.Tensor, x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor | None, epsilon: float
) -> None:
    hidden = x.shape[-1]
    outer, inner, x_outer, x_inner = as_rows(x)
    rows = outer * inner
    if rows == 0:
        return
    _, _, out_outer, out_inner = as_rows(out)
    _, _, residual_outer, residual_inner = as_rows(x if residual is None else residual)
    block = next_power_of_2(hidden)
    short = max(1, SHORT // block)
    warps = 1 if block * short <= 256 else 4 if block * short <= 2048 else 8
    norm_kernel[(triton.cdiv(rows, short),)](
        out, x, residual, weight, rows, inner, hidden, epsilon,
        out_outer, out_inner, x_outer, x_inner, residual_outer, residual_inner,
        ADD=residual is not None, WEIGHTED=weight is not None, ROWS=short, BLOCK=block, **early_launch(x),
        num_warps=warps,
    )


def rms_norm(out: torch.Tensor, input: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> None:
    launch(out, input, None, weight, epsilon)


def fused_add_rms_norm(
    input: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float,
    lora: Expansion | None = None,
) -> None:
    block = next_power_of_2(input.shape[-1])
    if lora is None:
        launch(input, input, residual, weight, epsilon)
    elif fits(lora) and block <= HELD and input.dtype != torch.float32:
        adapter_launch(input, residual, weight, epsilon, lora, block)
    else:
        expand(input, lora.shrunk, lora.b, lora.widths, lora.routing)
        launch(input, input, residual, weight, epsilon)


def adapter_launch(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor | None, epsilon: float, lora: Expansion, block: int
) -> None:
    at, shrunk, (tokens, hidden) = lora.routing, lora.shrunk, x.shape
    tiles = at.adapters.shape[0]
    if tokens == 0 or tiles == 0:
        return
    adapter_kernel[(tiles, triton.cdiv(at.tile, HELD_ROWS))](
        x, residual, weight, shrunk, lora.b, at.adapters, at.starts, at.counts, at.pool_rows, at.ranks, tokens,
        shrunk.shape[0], hidden, epsilon, x.stride(0), residual.stride(0), lora.b.stride(0), at.pool_rows.stride(0),
        shrunk.stride(1), WEIGHTED=weight is not None, ROWS=HELD_ROWS, HALF=RANKS // 2, PARTS=parts_of(shrunk),
        BLOCK=block, **early_launch(x), num_warps=max(1, min(16, block // 256)),
    )
