"""Low-rank adapters of many requests in one batch (Chen et al. 2024, Punica; Sheng et al. 2024, S-LoRA)."""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['lora_expand', 'lora_shrink']


def lora_shrink(
    inputs: torch.Tensor,
    lora_a_weights: list[torch.Tensor],
    output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor,
    token_indices_sorted_by_lora_ids: torch.Tensor,
    num_tokens_per_lora: torch.Tensor,
    lora_token_start_loc: torch.Tensor,
    lora_ids: torch.Tensor,
    no_lora_flag_cpu: torch.Tensor,
    num_active_loras: torch.Tensor,
    scaling: float,
) -> None:
    """output[s, t] = scaling * A[s][adapter of t] @ inputs[t]; zero for tokens without an adapter.

    inputs [T, K]; lora_a_weights: a [L, r, K] (or [L, 1, r, K]) tensor a slice; output_tensor [S, T, r]. Routing,
    int32: token_lora_mapping [T] (-1 = none), token_indices_sorted_by_lora_ids [T], then for each entry of lora_ids
    [L + 1] (-1 = none or unused) num_tokens_per_lora [L + 1] and lora_token_start_loc [L + 2] into the sorted order.
    On the CPU: no_lora_flag_cpu bool [1], true when no token has an adapter (the output is then left as it is);
    num_active_loras int32 [1], how many entries of lora_ids are to be looked at.
    """
    backend('lora', inputs).lora_shrink(
        inputs, lora_a_weights, output_tensor, token_lora_mapping, token_indices_sorted_by_lora_ids,
        num_tokens_per_lora,
        lora_token_start_loc, lora_ids, no_lora_flag_cpu, num_active_loras, scaling,
    )


def lora_expand(
    inputs: torch.Tensor,
    lora_b_weights: list[torch.Tensor],
    output_tensor: torch.Tensor,
    token_lora_mapping: torch.Tensor,
    token_indices_sorted_by_lora_ids: torch.Tensor,
    num_tokens_per_lora: torch.Tensor,
    lora_token_start_loc: torch.Tensor,
    lora_ids: torch.Tensor,
    no_lora_flag_cpu: torch.Tensor,
    num_active_loras: torch.Tensor,
    offset_start: int = 0,
    add_inputs: bool = False,
) -> None:
    """output[t, columns of slice s] = (+= with add_inputs) B[s][adapter of t] @ inputs[s, t].

    inputs [S, T, r] from lora_shrink; lora_b_weights: a [L, N, r] (or [L, 1, N, r]) tensor a slice, whose columns
    follow one another from offset_start on; output_tensor [T, ≥ offset_start + ΣN]. Tokens without an adapter are
    left alone. Routing as in lora_shrink.
    """
    backend('lora', inputs).lora_expand(
        inputs, lora_b_weights, output_tensor, token_lora_mapping, token_indices_sorted_by_lora_ids,
        num_tokens_per_lora,
        lora_token_start_loc, lora_ids, no_lora_flag_cpu, num_active_loras, offset_start, add_inputs,
    )
