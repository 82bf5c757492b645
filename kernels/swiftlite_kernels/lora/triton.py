"""vLLM's batched low-rank products: a launch a slice, whose programs read the routing on the device.

A captured call serves every mix of adapters. The engine's own kernels, over pages of ranks, are those of paged_lora.
"""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import next_power_of_2

TOKENS = 16  # of a program
RANKS = 256  # of a launch at most


@triton.jit
def routed(order, counts, starts, entry, TOKENS: tl.constexpr):
    """(tokens [TOKENS], which of them are there) of a program among those of an adapter."""
    place = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    here = place < tl.load(counts + entry)
    return tl.load(order + tl.load(starts + entry) + place, here, other=0).to(tl.int64), here


@triton.jit
def shrink_kernel(
    out, x, a, order, counts, starts, ids, scaling, columns, rank, x_row, a_adapter, a_row, out_row,
    TOKENS: tl.constexpr, COLUMNS: tl.constexpr, RANK: tl.constexpr, IEEE: tl.constexpr,
):
    """Program (tokens of an adapter, entry of ids)."""
    entry = tl.program_id(1)
    adapter = tl.load(ids + entry).to(tl.int64)
    if (adapter < 0) | (tl.program_id(0) * TOKENS >= tl.load(counts + entry)):
        return
    token, here = routed(order, counts, starts, entry, TOKENS)
    r = tl.arange(0, RANK)
    line, lines = x + token[:, None] * x_row, a + adapter * a_adapter + r[:, None] * a_row
    total = tl.zeros([TOKENS, RANK], tl.float32)
    for piece in range(tl.cdiv(columns, COLUMNS)):
        column = piece * COLUMNS + tl.arange(0, COLUMNS)
        inside = (column < columns)[None, :]
        value = tl.load(line + column[None, :], here[:, None] & inside, other=0.0).to(a.dtype.element_ty)
        weight = tl.load(lines + column[None, :], (r < rank)[:, None] & inside, other=0.0)
        total = tl.dot(value, tl.trans(weight), total, input_precision='ieee' if IEEE else None)
    at = out + token[:, None] * out_row + r[None, :]
    tl.store(at, (total * scaling).to(out.dtype.element_ty), here[:, None] & (r < rank)[None, :])


@triton.jit
def expand_kernel(
    y, x, b, order, counts, starts, ids, width, rank, x_row, b_adapter, b_row, y_row,
    TOKENS: tl.constexpr, WIDTH: tl.constexpr, RANK: tl.constexpr, ADD: tl.constexpr, IEEE: tl.constexpr,
):
    """Program (tokens of an adapter, columns of the output, entry of ids)."""
    entry = tl.program_id(2)
    adapter = tl.load(ids + entry).to(tl.int64)
    if (adapter < 0) | (tl.program_id(0) * TOKENS >= tl.load(counts + entry)):
        return
    token, here = routed(order, counts, starts, entry, TOKENS)
    r, column = tl.arange(0, RANK), tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = (column < width)[None, :]
    value = tl.load(x + token[:, None] * x_row + r[None, :], here[:, None] & (r < rank)[None, :], other=0.0)
    weight = tl.load(b + adapter * b_adapter + column[:, None] * b_row + r[None, :],
                     (column < width)[:, None] & (r < rank)[None, :], other=0.0)
    precision: tl.constexpr = 'ieee' if IEEE else None
    product = tl.dot(value.to(tl.float32), tl.trans(weight.to(tl.float32)), input_precision=precision)
    at = y + token[:, None] * y_row + column[None, :]
    if ADD:
        product += tl.load(at, here[:, None] & inside, other=0.0).to(tl.float32)
    tl.store(at, product.to(y.dtype.element_ty), here[:, None] & inside)


def adapters_of(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    """Weights as [L, rows, columns] with adjacent columns."""
    flat = [w[:, 0] if w.dim() == 4 else w for w in weights]
    for w in flat:
        if w.stride(-1) != 1:
            raise ValueError(f'adapter weights must have contiguous rows, got strides {w.stride()}')
    return flat


def lora_shrink(
    inputs: torch.Tensor, lora_a_weights: list[torch.Tensor], output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor, token_indices_sorted_by_lora_ids: torch.Tensor,
    num_tokens_per_lora: torch.Tensor, lora_token_start_loc: torch.Tensor, lora_ids: torch.Tensor,
    no_lora_flag_cpu: torch.Tensor, num_active_loras: torch.Tensor, scaling: float,
) -> None:
    if no_lora_flag_cpu.item() or inputs.shape[0] == 0:
        return
    tokens, columns = inputs.shape
    output_tensor.zero_()  # of tokens without an adapter
    single = inputs.dtype == torch.float32
    for s, a in enumerate(adapters_of(lora_a_weights)):
        for first in range(0, a.shape[1], RANKS):
            part, out = a[:, first : first + RANKS], output_tensor[s, :, first:]
            rank = part.shape[1]
            shrink_kernel[(triton.cdiv(tokens, TOKENS), lora_ids.shape[0])](
                out, inputs, part, token_indices_sorted_by_lora_ids, num_tokens_per_lora, lora_token_start_loc,
                lora_ids, scaling, columns, rank, inputs.stride(0), part.stride(0), part.stride(1), out.stride(0),
                TOKENS=TOKENS, COLUMNS=32 if single else 64 if rank > 64 else 256, RANK=max(16, next_power_of_2(rank)),
                IEEE=single, num_warps=4, num_stages=3,
            )


def lora_expand(
    inputs: torch.Tensor, lora_b_weights: list[torch.Tensor], output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor, token_indices_sorted_by_lora_ids: torch.Tensor,
    num_tokens_per_lora: torch.Tensor, lora_token_start_loc: torch.Tensor, lora_ids: torch.Tensor,
    no_lora_flag_cpu: torch.Tensor, num_active_loras: torch.Tensor, offset_start: int = 0, add_inputs: bool = False,
) -> None:
    tokens = output_tensor.shape[0]
    if no_lora_flag_cpu.item() or tokens == 0:
        return
    for s, b in enumerate(adapters_of(lora_b_weights)):
        width, rank = b.shape[1:]
        for first in range(0, rank, RANKS):
            part, x = b[..., first : first + RANKS], inputs[s, :, first:]
            y = output_tensor[:, offset_start : offset_start + width]
            padded = max(16, next_power_of_2(part.shape[2]))
            columns = max(32, min(128, 4096 // padded))
            expand_kernel[(triton.cdiv(tokens, TOKENS), triton.cdiv(width, columns), lora_ids.shape[0])](
                y, x, part, token_indices_sorted_by_lora_ids, num_tokens_per_lora, lora_token_start_loc, lora_ids,
                width, part.shape[2], x.stride(0), part.stride(0), part.stride(1), y.stride(0),
                TOKENS=TOKENS, WIDTH=columns, RANK=padded, ADD=add_inputs or first > 0,
                IEEE=b.dtype == torch.float32, num_warps=4,
            )
        offset_start += width
