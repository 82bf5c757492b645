"""Attention of sequences to themselves in torch."""

import torch

from swiftlite_kernels.attention.reference import Scoring, attend_prompt


def context_attention_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    b_start_loc: torch.Tensor,
    b_seq_len: torch.Tensor,
    max_input_len: int,
    is_causal: bool,
    scale: float,
    window: tuple[int, int],
) -> None:
    scoring = Scoring(scale, is_causal, window, 0.0, None, False, None)
    for start, length in zip(b_start_loc.tolist(), b_seq_len.tolist(), strict=False):
        rows = slice(start, start + length)
        if length:
            o[rows] = attend_prompt(q[rows], k[rows], v[rows], scoring).to(o.dtype)
