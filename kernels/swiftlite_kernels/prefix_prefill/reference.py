"""Attention of new tokens over cached ones in torch, sequence by sequence."""

import torch

from swiftlite_kernels.attention.reference import Scoring, attend_prompt, store
from swiftlite_kernels.paged_attention.reference import read_packed


def context_attention_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    kv_cache_dtype: str,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    b_loc: torch.Tensor,
    b_start_loc: torch.Tensor,
    b_seq_len: torch.Tensor,
    max_input_len: int,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    alibi_slopes: torch.Tensor | None,
    left: int,
    scale: float,
    skip_decode: bool,
    fp8_out_scale: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> None:
    """left: how far back a query sees, -1 = all the way."""
    scoring = Scoring(scale, True, (left, -1), 0.0, alibi_slopes, False, sinks)
    starts = b_start_loc.tolist()
    for i, length in enumerate(b_seq_len.tolist()):
        new = slice(starts[i], starts[i + 1])
        count = new.stop - new.start
        if count == 0 or (skip_decode and count == 1):
            continue
        old_k, old_v = read_packed(k_cache, v_cache, b_loc[i], length - count, kv_cache_dtype, k_scale, v_scale)
        keys = torch.cat([old_k.to(q.dtype), k[new].to(q.dtype)])
        values = torch.cat([old_v.to(q.dtype), v[new].to(q.dtype)])
        store(o[new], attend_prompt(q[new], keys, values, scoring), fp8_out_scale)
