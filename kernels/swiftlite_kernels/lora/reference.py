"""Batched low-rank products in torch: one product an adapter and slice."""

from collections.abc import Iterator

import torch


def lora_shrink(
    inputs: torch.Tensor, lora_a_weights: list[torch.Tensor], output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor,
    token_indices_sorted_by_lora_ids: torch.Tensor, num_tokens_per_lora: torch.Tensor,
    lora_token_start_loc: torch.Tensor,
    lora_ids: torch.Tensor, no_lora_flag_cpu: torch.Tensor, num_active_loras: torch.Tensor, scaling: float,
) -> None:
    if no_lora_flag_cpu.item():
        return
    output_tensor.zero_()
    for adapter, rows in runs(token_indices_sorted_by_lora_ids, num_tokens_per_lora, lora_token_start_loc, lora_ids):
        x = inputs[rows].to(output_tensor.dtype)
        for s, a in enumerate(lora_a_weights):
            output_tensor[s, rows] = x @ matrix(a, adapter).to(x.dtype).T * scaling


def lora_expand(
    inputs: torch.Tensor, lora_b_weights: list[torch.Tensor], output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor,
    token_indices_sorted_by_lora_ids: torch.Tensor, num_tokens_per_lora: torch.Tensor,
    lora_token_start_loc: torch.Tensor,
    lora_ids: torch.Tensor, no_lora_flag_cpu: torch.Tensor, num_active_loras: torch.Tensor, offset_start: int = 0,
    add_inputs: bool = False,
) -> None:
    if no_lora_flag_cpu.item():
        return
    for adapter, rows in runs(token_indices_sorted_by_lora_ids, num_tokens_per_lora, lora_token_start_loc, lora_ids):
        offset = offset_start
        for s, b in enumerate(lora_b_weights):
            weight = matrix(b, adapter)
            columns = slice(offset, offset + weight.shape[0])
            product = inputs[s, rows].to(weight.dtype) @ weight.T  # rounded to the weight's dtype, as the kernel does
            product = product.to(output_tensor.dtype)
            output_tensor[rows, columns] = output_tensor[rows, columns] + product if add_inputs else product
            offset += weight.shape[0]


def matrix(weights: torch.Tensor, adapter: int) -> torch.Tensor:
    weight = weights[adapter]
    return weight[0] if weight.dim() == 3 else weight


def runs(
    order: torch.Tensor, counts: torch.Tensor, starts: torch.Tensor, lora_ids: torch.Tensor
) -> Iterator[tuple[int, torch.Tensor]]:
    """(adapter, its token rows) for every adapter of the batch."""
    for adapter, start, count in zip(lora_ids.tolist(), starts.tolist(), counts.tolist(), strict=False):
        if adapter >= 0 and count > 0:
            yield adapter, order[start : start + count]
