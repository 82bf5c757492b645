"""Attention of sequences to themselves in Triton: the kernel of prefix_prefill without a cache."""

import torch

from swiftlite_kernels.prefix_prefill.triton import attend_new


def context_attention_fwd(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, o: torch.Tensor, b_start_loc: torch.Tensor,
    b_seq_len: torch.Tensor, max_input_len: int, is_causal: bool, scale: float, window: tuple[int, int],
) -> None:
    starts = b_start_loc
    if starts.shape[0] == b_seq_len.shape[0] and starts.shape[0]:
        starts = torch.cat([starts, starts[-1:] + b_seq_len[-1:]])
    attend_new(q, k, v, o, starts, b_seq_len, max_input_len, scale, is_causal, window)
