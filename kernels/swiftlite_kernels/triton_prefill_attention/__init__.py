"""Attention of sequences to themselves, without a cache: vLLM's module of this name.

The op of the same name over a cache is in prefix_prefill.
"""

import torch

from swiftlite_kernels.dispatch import backend

__all__ = ['context_attention_fwd']


def context_attention_fwd(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    o: torch.Tensor,
    b_start_loc: torch.Tensor,
    b_seq_len: torch.Tensor,
    max_input_len: int,
    is_causal: bool = True,
    softmax_scale: float | None = None,
    sliding_window_q: int | None = None,
    sliding_window_k: int | None = None,
) -> None:
    """Attention of B sequences, one after another without gaps, to themselves; writes o.

    q, o [T, q_heads, head_size], k, v [T, kv_heads, head_size], rows may be strided; b_start_loc int32 [B] or [B + 1]
    row starts; b_seq_len int32 [B]; max_input_len: at least the longest. Rows of no sequence are not written.
    is_causal False: a query sees the keys after it too. sliding_window_q: how far a query sees back,
    sliding_window_k: how far ahead; None or 0 = all. softmax_scale: default 1 / sqrt(head_size).
    """
    if q.shape[1] % k.shape[1]:
        raise ValueError(f'{q.shape[1]} query heads are no multiple of {k.shape[1]} key heads')
    window = (sliding_window_q or -1, sliding_window_k or -1)
    backend('triton_prefill_attention', q).context_attention_fwd(
        q, k, v, o, b_start_loc, b_seq_len, max_input_len, is_causal,
        q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale, window,
    )  # fmt: skip
