"""vLLM's batched low-rank products by the kernels of paged_lora: every slice's weights are a pool of their own.

The tiles are made on the device from vLLM's routing, so that a captured call serves every mix of adapters.
"""

import torch

from swiftlite_kernels.paged_lora import LoRARouting
from swiftlite_kernels.paged_lora import triton as paged

SMALL, LARGE, FEW_TOKENS = 16, 64, 512  # tokens of a tile, up to FEW_TOKENS in all and above


def tiles(
    order: torch.Tensor, counts: torch.Tensor, starts: torch.Tensor, ids: torch.Tensor, pool_rows: torch.Tensor
) -> LoRARouting:
    """pool_rows [L, r]: rows of a pool that hold an adapter's ranks."""
    adapters, rank = pool_rows.shape
    size = SMALL if order.shape[0] <= FEW_TOKENS else LARGE
    ends = ((counts + size - 1) // size).cumsum(0)  # tiles up to each entry of ids
    tile = torch.arange(order.shape[0] // size + ids.shape[0], device=order.device)
    entry = torch.searchsorted(ends, tile, right=True).clamp_(max=ids.shape[0] - 1)
    first = tile - torch.where(entry > 0, ends[entry - 1], 0)  # within the entry
    left = (counts[entry] - first * size).clamp_(0, size)
    base = ids[entry] < 0
    ranks = (torch.arange(adapters + 1, device=order.device) < adapters).int() * rank  # the last: base tokens
    return LoRARouting(
        torch.where(base, adapters, ids[entry]).int(), (starts[entry] + first * size).int(), left.int(),
        torch.cat([pool_rows, pool_rows[:1]]).int(), ranks, size, order,
    )  # fmt: skip


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
    has = (token_lora_mapping >= 0)[:, None]
    for s, a in enumerate(adapters_of(lora_a_weights)):
        rank = a.shape[1]
        rows = torch.arange(a.shape[0], device=a.device)[:, None] * (a.stride(0) // a.stride(1))
        where = tiles(
            token_indices_sorted_by_lora_ids, num_tokens_per_lora, lora_token_start_loc, lora_ids,
            rows + torch.arange(rank, device=a.device),
        )  # fmt: skip
        parts = paged.shrink(inputs.to(a.dtype), one_pool(a), where, None)
        output_tensor[s] = torch.where(has, parts[..., :rank].sum(0) * scaling, 0)


def one_pool(a: torch.Tensor) -> torch.Tensor:
    """[L, r, K] as [1, rows, K], whose rows are counted from the first one; ValueError if they do not lie evenly."""
    if a.stride(0) % a.stride(1):
        raise ValueError(f'adapters must lie whole rows apart, got strides {a.stride()}')
    rows = (a.shape[0] - 1) * (a.stride(0) // a.stride(1)) + a.shape[1]
    return a.as_strided((1, rows, a.shape[2]), (0, a.stride(1), 1))


def lora_expand(
    inputs: torch.Tensor, lora_b_weights: list[torch.Tensor], output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor, token_indices_sorted_by_lora_ids: torch.Tensor,
    num_tokens_per_lora: torch.Tensor, lora_token_start_loc: torch.Tensor, lora_ids: torch.Tensor,
    no_lora_flag_cpu: torch.Tensor, num_active_loras: torch.Tensor, offset_start: int = 0, add_inputs: bool = False,
) -> None:
    if no_lora_flag_cpu.item() or output_tensor.shape[0] == 0:
        return
    has = (token_lora_mapping >= 0)[:, None]
    for s, b in enumerate(adapters_of(lora_b_weights)):
        adapters, width, rank = b.shape
        y = output_tensor[:, offset_start : offset_start + width]
        if not add_inputs:
            y.copy_(torch.where(has, 0, y))
        # the r-th rank of an adapter is a row of the pool that begins at its first column's r-th element
        pool = b.as_strided((b.stride(0) * (adapters - 1) + rank, width), (1, b.stride(1)))
        rows = torch.arange(adapters, device=b.device)[:, None] * b.stride(0) + torch.arange(rank, device=b.device)
        where = tiles(
            token_indices_sorted_by_lora_ids, num_tokens_per_lora, lora_token_start_loc, lora_ids, rows
        )  # fmt: skip
        paged.expand(y, inputs[s : s + 1].float(), pool, [width], where)
        offset_start += width
