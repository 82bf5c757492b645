"""LoRA's narrow products with dropout in Triton: the mask is drawn where an element is read."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.lora_dropout import STEPS, threshold
from swiftlite_kernels.triton import begin, early_launch, multiprocessors, next_power_of_2, shared_memory

PROGRAMS = 4  # of a multiprocessor
RANKS, RANK_BYTES = (256, 128, 64), 544  # of a launch at most, and what each takes of the shared memory


@triton.jit
def mix(x):
    x = (x ^ (x >> 16)) * 0x21F0AAAD
    x = (x ^ (x >> 15)) * 0xD35A2D97
    return x ^ (x >> 15)


@triton.jit
def hashed(places, word):
    """The part of a row's or column's place in the hash of an element."""
    return mix(mix(places.to(tl.uint32)) ^ word.to(tl.uint32))


@triton.jit(do_not_specialize=['low', 'high', 'limit', 'rows', 'share'])
def shrink_kernel(
    out, x, a, low, high, limit, scale, rows, columns, rank, share, x_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr, IEEE: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (rows, share of the columns): its part of the sum, fp32 [shares, rows, rank]."""
    begin(EARLY)
    row, part, r = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1), tl.arange(0, RANK)
    line = x + row.to(tl.int64)[:, None] * x_stride
    present = (row < rows)[:, None]
    row_hash = hashed(row, low)[:, None]
    limit = limit.to(tl.uint32)
    total = tl.zeros([ROWS, RANK], tl.float32)
    for start in range(part * share, tl.minimum((part + 1) * share, columns), COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        inside = (column < columns)[None, :]
        value = tl.load(line + column[None, :], present & inside, other=0.0)
        weight = tl.load(a + r[:, None] * columns + column[None, :], (r < rank)[:, None] & inside, other=0.0)
        keep = mix(row_hash ^ hashed(column, high)[None, :]) >= limit
        value = tl.where(keep, value, 0.0).to(x.dtype.element_ty)
        total = tl.dot(value, tl.trans(weight), total, input_precision='ieee' if IEEE else None)
    at = out + (part * rows + row).to(tl.int64)[:, None] * rank + r[None, :]
    tl.store(at, total * scale, present & (r < rank)[None, :])


@triton.jit(do_not_specialize=['low', 'high', 'limit', 'rows', 'share'])
def shrink_backward_kernel(
    grad_a, grad_x, grad, x, a, low, high, limit, scale, rows, columns, rank, share,
    grad_x_stride, grad_stride, x_stride,
    WEIGHT: tl.constexpr, INPUT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr,
    IEEE: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (columns, share of the rows): grad_a fp32 [shares, rank, columns], and its tiles of grad_x."""
    begin(EARLY)
    part, r = tl.program_id(1), tl.arange(0, RANK)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (column < columns)[None, :]
    precision: tl.constexpr = 'ieee' if IEEE else None
    weight = tl.load(a + r[:, None] * columns + column[None, :], (r < rank)[:, None] & inside, other=0.0)
    column_hash = hashed(column, high)[None, :]
    limit = limit.to(tl.uint32)
    total = tl.zeros([RANK, COLUMNS], tl.float32)
    for start in range(part * share, tl.minimum((part + 1) * share, rows), ROWS):
        row = start + tl.arange(0, ROWS)
        line = row.to(tl.int64)[:, None]
        present = (row < rows)[:, None]
        keep = mix(hashed(row, low)[:, None] ^ column_hash) >= limit
        slope = tl.load(grad + line * grad_stride + r[None, :], present & (r < rank)[None, :], other=0.0)
        if WEIGHT:
            value = tl.load(x + line * x_stride + column[None, :], present & inside, other=0.0)
            value = tl.where(keep, value, 0.0).to(x.dtype.element_ty)
            total = tl.dot(tl.trans(slope), value, total, input_precision=precision)
        if INPUT:
            more = tl.dot(slope, weight, input_precision=precision) * scale
            at = grad_x + line * grad_x_stride + column[None, :]
            before = tl.load(at, present & inside, other=0.0).to(tl.float32)
            tl.store(at, (before + tl.where(keep, more, 0.0)).to(grad_x.dtype.element_ty), present & inside)
    if WEIGHT:
        tl.store(grad_a + (part * rank + r).to(tl.int64)[:, None] * columns + column[None, :], total * scale,
                 (r < rank)[:, None] & inside)


def spread(pieces: int, others: int, x: torch.Tensor) -> tuple[int, int]:
    """(pieces a program takes, programs along them), so that with `others` the GPU has work for all."""
    share = triton.cdiv(pieces, min(pieces, triton.cdiv(PROGRAMS * multiprocessors(x.device), others)))
    return share, triton.cdiv(pieces, share)


def sizes(x: torch.Tensor, rank: int) -> dict[str, int | bool]:
    """Tiles of the kernels; those of fp32 products are done on ordinary cores, in registers."""
    side, warps = (32, 4) if x.dtype == torch.float32 else (64, 8)
    return {
        'ROWS': side, 'COLUMNS': side, 'RANK': max(16, next_power_of_2(rank)), 'IEEE': x.dtype == torch.float32,
        'num_warps': warps, 'num_stages': 3,
    }


def ranks_at_once(x: torch.Tensor) -> int:
    """Ranks of a launch; the tiles of more do not fit into the shared memory."""
    return next((ranks for ranks in RANKS if ranks * RANK_BYTES <= shared_memory(x.device)), RANKS[-1])


def words(seed: int, p: float) -> tuple[int, int, int, float]:
    """Halves of the seed, threshold and factor as a kernel takes them: the words signed, so that all have one type."""
    limit = threshold(p)
    low, high, least = ((word & 0xFFFFFFFF ^ 0x80000000) - 0x80000000 for word in (seed, seed >> 32, limit))
    return low, high, least, STEPS / (STEPS - limit)


def dropout_shrink(x: torch.Tensor, a: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    (rows, columns), rank = x.shape, a.shape[0]
    if rows == 0:
        return x.new_empty(0, rank)
    if rank > (most := ranks_at_once(x)):
        return torch.cat([dropout_shrink(x, part, p, seed) for part in a.split(most)], 1)
    options = sizes(x, rank)
    blocks = triton.cdiv(rows, options['ROWS'])
    share, parts = spread(triton.cdiv(columns, options['COLUMNS']), blocks, x)
    out = torch.empty(parts, rows, rank, dtype=torch.float32, device=x.device)
    shrink_kernel[(blocks, parts)](
        out, x, a, *words(seed, p), rows, columns, rank, share * options['COLUMNS'], x.stride(0),
        **early_launch(x), **options,
    )
    return (out[0] if parts == 1 else out.sum(0)).to(x.dtype)


def dropout_shrink_backward(
    grad: torch.Tensor,
    x: torch.Tensor | None,
    a: torch.Tensor,
    p: float,
    seed: int,
    grad_x: torch.Tensor | None,
) -> torch.Tensor | None:
    rows, (rank, columns), device = grad.shape[0], a.shape, grad.device
    if rows == 0:
        return None if x is None else torch.zeros(rank, columns, dtype=torch.float32, device=device)
    if rank > (most := ranks_at_once(grad)):
        pairs = zip(grad.split(most, 1), a.split(most), strict=True)
        found = [dropout_shrink_backward(slope, x, part, p, seed, grad_x) for slope, part in pairs]
        return None if x is None else torch.cat([part for part in found if part is not None])
    options = sizes(grad, rank)
    blocks = triton.cdiv(columns, options['COLUMNS'])
    share, parts = spread(triton.cdiv(rows, options['ROWS']), blocks, grad)
    source, into = grad if x is None else x, grad if grad_x is None else grad_x
    grad_a = None if x is None else torch.empty(parts, rank, columns, dtype=torch.float32, device=device)
    shrink_backward_kernel[(blocks, parts)](
        grad_a, into, grad, source, a, *words(seed, p), rows, columns, rank, share * options['ROWS'],
        into.stride(0), grad.stride(0), source.stride(0), WEIGHT=x is not None, INPUT=grad_x is not None,
        **early_launch(grad), **options,
    )
    return None if grad_a is None else grad_a[0] if parts == 1 else grad_a.sum(0)
