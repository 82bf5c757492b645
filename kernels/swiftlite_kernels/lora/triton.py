"""Batched low-rank products in Triton: a program takes a tile of one adapter's tokens, in the sorted order.

The grid has an axis over the entries of lora_ids, whose unused ones leave at once, so that a captured launch serves
any mix of adapters. Slices are passed by pointer, up to MAX_SLICES a launch.
"""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import begin, early_launch, next_power_of_2

MAX_SLICES = 4


@triton.jit
def slice_of(s, x0, x1, x2, x3):
    if s == 0:
        return x0
    elif s == 1:
        return x1
    elif s == 2:
        return x2
    else:
        return x3


@triton.jit
def tokens_of(order, counts, starts, ids, entry, tile, ROWS: tl.constexpr):
    """(adapter, tokens [ROWS] of its tile, which of them exist)."""
    count, start = tl.load(counts + entry), tl.load(starts + entry)
    row = tile * ROWS + tl.arange(0, ROWS)
    live = row < count
    return tl.load(ids + entry), tl.load(order + start + row, live, other=0).to(tl.int64), live


@triton.jit(do_not_specialize=['tokens'])
def shrink_kernel(
    x, a0, a1, a2, a3, out, order, counts, starts, ids, tokens, scaling, rank, width,
    x_row, a_adapter, a_row, out_slice, out_row,
    ROWS: tl.constexpr, RANKS: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile x rank tile, slice, entry)."""
    begin(EARLY)
    rank_tiles = tl.cdiv(rank, RANKS)
    tile, s, entry = tl.program_id(0) // rank_tiles, tl.program_id(1), tl.program_id(2)
    if tile * ROWS >= tl.load(counts + entry):
        return
    adapter, token, live = tokens_of(order, counts, starts, ids, entry, tile, ROWS)
    a = slice_of(s, a0, a1, a2, a3) + tl.maximum(adapter, 0).to(tl.int64) * a_adapter
    r = (tl.program_id(0) % rank_tiles) * RANKS + tl.arange(0, RANKS)
    k = tl.arange(0, STEP)
    acc = tl.zeros([ROWS, RANKS], tl.float32)
    if adapter >= 0:
        for first in range(0, width, STEP):
            inside = first + k < width
            x_tile = tl.load(
                x + token[:, None] * x_row + (first + k)[None, :], live[:, None] & inside[None, :], other=0.0
            )
            a_tile = tl.load(a + r[None, :] * a_row + (first + k)[:, None], (r < rank)[None, :] & inside[:, None],
            other=0.0)
            acc = tl.dot(x_tile.to(a_tile.dtype), a_tile, acc, input_precision=PRECISION)
    at = out + s * out_slice + token[:, None] * out_row + r[None, :]
    tl.store(at, (acc * scaling).to(out.dtype.element_ty), live[:, None] & (r < rank)[None, :])


@triton.jit(do_not_specialize=['tokens'])
def expand_kernel(
    x, b0, b1, b2, b3, out, order, counts, starts, ids, tokens, rank, n0, n1, n2, n3, offset,
    x_slice, x_row, b_adapter0, b_adapter1, b_adapter2, b_adapter3, b_row, out_row,
    ADD: tl.constexpr, ROWS: tl.constexpr, RANKS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Program (tile, columns of a slice, entry); the second axis counts the column tiles of all slices."""
    begin(EARLY)
    tile, part, entry = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if tile * ROWS >= tl.load(counts + entry):
        return
    adapter, token, live = tokens_of(order, counts, starts, ids, entry, tile, ROWS)
    if adapter < 0:
        return
    s = 0
    for i in tl.static_range(3):  # which slice the column tile lies in
        n = n0 if i == 0 else n1 if i == 1 else n2
        if (s == i) & (part >= tl.cdiv(n, COLUMNS)):
            part -= tl.cdiv(n, COLUMNS)
            offset += n
            s = i + 1
    n = slice_of(s, n0, n1, n2, n3)
    stride = slice_of(s, b_adapter0, b_adapter1, b_adapter2, b_adapter3)
    b = slice_of(s, b0, b1, b2, b3) + adapter.to(tl.int64) * stride
    column = part * COLUMNS + tl.arange(0, COLUMNS)
    r = tl.arange(0, RANKS)
    acc = tl.zeros([ROWS, COLUMNS], tl.float32)
    for first in range(0, rank, RANKS):
        inside = first + r < rank
        x_tile = tl.load(
            x + s * x_slice + token[:, None] * x_row + (first + r)[None, :], live[:, None] & inside[None, :], other=0.0
        )
        b_tile = tl.load(
            b + column[None, :] * b_row + (first + r)[:, None], (column < n)[None, :] & inside[:, None], other=0.0
        )
        acc = tl.dot(x_tile.to(b_tile.dtype), b_tile, acc, input_precision=PRECISION)
    at = out + token[:, None] * out_row + (offset + column)[None, :]
    mask = live[:, None] & (column < n)[None, :]
    result = acc.to(b0.dtype.element_ty).to(out.dtype.element_ty)
    if ADD:
        result = (tl.load(at, mask, other=0.0).to(tl.float32) + result.to(tl.float32)).to(out.dtype.element_ty)
    tl.store(at, result, mask)


def stacks(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """Weights as [L, rows, columns] with adjacent columns, padded to MAX_SLICES by repetition."""
    flat = [w[:, 0] if w.dim() == 4 else w for w in weights]
    for w in flat:
        if w.stride(-1) != 1:
            raise ValueError(f'adapter weights must have contiguous rows, got strides {w.stride()}')
    return flat + flat[-1:] * (MAX_SLICES - len(flat))


def lora_shrink(
    inputs: torch.Tensor, lora_a_weights: list[torch.Tensor], output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor, token_indices_sorted_by_lora_ids: torch.Tensor,
    num_tokens_per_lora: torch.Tensor, lora_token_start_loc: torch.Tensor, lora_ids: torch.Tensor,
    no_lora_flag_cpu: torch.Tensor, num_active_loras: torch.Tensor, scaling: float,
) -> None:
    if no_lora_flag_cpu.item() or inputs.shape[0] == 0:
        return
    tokens, width = inputs.shape
    for first in range(0, len(lora_a_weights), MAX_SLICES):
        slices = lora_a_weights[first : first + MAX_SLICES]
        a = stacks(slices)
        rank = a[0].shape[1]
        rows, ranks = 16 if tokens <= 512 else 64, min(64, max(16, next_power_of_2(rank)))
        step = 64 if inputs.dtype == torch.float32 else 256 if rows * ranks <= 512 else 64
        shrink_kernel[(triton.cdiv(tokens, rows) * triton.cdiv(rank, ranks), len(slices), int(num_active_loras))](
            inputs, *a, output_tensor[first:], token_indices_sorted_by_lora_ids, num_tokens_per_lora,
            lora_token_start_loc, lora_ids, tokens, scaling, rank, width, inputs.stride(0), a[0].stride(0),
            a[0].stride(1), output_tensor.stride(0), output_tensor.stride(1),
            ROWS=rows, RANKS=ranks, STEP=step, PRECISION='ieee' if a[0].dtype == torch.float32 else 'tf32',
            **early_launch(inputs), num_warps=4, num_stages=3,
        )


def lora_expand(
    inputs: torch.Tensor, lora_b_weights: list[torch.Tensor], output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor, token_indices_sorted_by_lora_ids: torch.Tensor,
    num_tokens_per_lora: torch.Tensor, lora_token_start_loc: torch.Tensor, lora_ids: torch.Tensor,
    no_lora_flag_cpu: torch.Tensor, num_active_loras: torch.Tensor, offset_start: int = 0, add_inputs: bool = False,
) -> None:
    if no_lora_flag_cpu.item() or output_tensor.shape[0] == 0:
        return
    tokens, rank = inputs.shape[1], inputs.shape[2]
    for first in range(0, len(lora_b_weights), MAX_SLICES):
        slices = lora_b_weights[first : first + MAX_SLICES]
        b = stacks(slices)
        rows, columns = (16, 128) if tokens <= 512 else (64, 128)
        parts = sum(triton.cdiv(w.shape[1], columns) for w in b[: len(slices)])
        expand_kernel[(triton.cdiv(tokens, rows), parts, int(num_active_loras))](
            inputs[first:], *b, output_tensor, token_indices_sorted_by_lora_ids, num_tokens_per_lora,
            lora_token_start_loc, lora_ids, tokens, rank, *[w.shape[1] for w in b], offset_start,
            inputs.stride(0), inputs.stride(1), *[w.stride(0) for w in b], b[0].stride(1), output_tensor.stride(0),
            ADD=add_inputs, ROWS=rows, RANKS=min(64, max(16, next_power_of_2(rank))), COLUMNS=columns,
            PRECISION='ieee' if b[0].dtype == torch.float32 else 'tf32', **early_launch(inputs), num_warps=4,
            num_stages=2,
        )
        offset_start += sum(w.shape[1] for w in slices)
