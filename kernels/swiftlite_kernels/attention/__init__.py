"""Attention over the paged cache, and merging of partial attention results."""

from typing import Any

import torch

from swiftlite_kernels.attention.options import check_options
from swiftlite_kernels.dispatch import backend

__all__ = ['merge_attn_states', 'unified_attention']


def unified_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    max_seqlen_q: int,
    seqused_k: torch.Tensor,
    max_seqlen_k: int,
    softmax_scale: float,
    causal: bool,
    window_size: tuple[int, int],
    block_table: torch.Tensor,
    softcap: float,
    q_descale: torch.Tensor | None,
    k_descale: torch.Tensor | None,
    v_descale: torch.Tensor | None,
    seq_threshold_3D: int | None = None,
    num_par_softmax_segments: int | None = None,
    softmax_segm_output: torch.Tensor | None = None,
    softmax_segm_max: torch.Tensor | None = None,
    softmax_segm_expsum: torch.Tensor | None = None,
    alibi_slopes: torch.Tensor | None = None,
    output_scale: torch.Tensor | None = None,
    qq_bias: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    mm_prefix_range: torch.Tensor | None = None,
    use_alibi_sqrt: bool = False,
    kv_quant_mode: Any = 0,
    k_scale_cache: torch.Tensor | None = None,
    v_scale_cache: torch.Tensor | None = None,
    chunk_lookback: int = -1,
    use_td: bool = False,
    shared_prefix: torch.Tensor | None = None,
) -> None:
    """Attention of a batch that mixes prompts, prompt chunks and single decode tokens; writes out.

    q, out [T, q_heads, head_size]; k, v [blocks, block_size, kv_heads, head_size], any strides (the last one 1);
    cu_seqlens_q int32 [B + 1] row starts; seqused_k int32 [B] lengths with the new tokens, which the cache already
    holds; block_table int32 [B, max_blocks]. Sequence i's queries are its last positions. A row past cu_seqlens_q[-1]
    is not written; a sequence of length 0 gets zeros. On a GPU the lengths are read on the device: only shapes,
    max_seqlen_q and max_seqlen_k may choose the grid.

    Scores are q·k * softmax_scale, then softcap * tanh(score / softcap) where softcap > 0, then alibi (slope * (key
    position - query position); use_alibi_sqrt: -slope * sqrt(distance)). window_size (left, right), -1 = open: a
    query at p sees keys in [p - left, p + right]; causal sees none after p. sinks [q_heads]: a logit a head that
    takes part in the softmax without a value. k_descale, v_descale [B, kv_heads]: factors of an fp8 cache (uint8
    reads as float8_e4m3fn). output_scale: out = result / output_scale, saturated, for an fp8 out.

    num_par_softmax_segments fixes the number of key splits of a decode batch (default: from the number of
    multiprocessors); the softmax_segm_* buffers ([≥ T, q_heads, segments, padded head size], [.., segments] twice,
    fp32) are scratch, made when not given. seq_threshold_3D and use_td are hints that change no result and are not
    used. q_descale, qq_bias, mm_prefix_range, kv_quant_mode (with k_scale_cache, v_scale_cache) and chunk_lookback
    must be left at their defaults (ValueError).

    shared_prefix, not in vLLM: int32 [3] on the device (first, last, n): sequences first to last - 1 have one query
    token each and the same first n keys, n a multiple of the block size and less than each length: the same blocks in
    block_table. These keys are then read once for many sequences; n 0 says that nothing is shared. A hint: the result
    is the same but for the order of sums.

    Under an early launch (GPUs from Hopper on) cu_seqlens_q, seqused_k, block_table and shared_prefix may be read
    while the previous kernel still runs: they must not be what it writes, unless it was launched the ordinary way.
    """
    check_options(q_descale, qq_bias, mm_prefix_range, kv_quant_mode, k_scale_cache, v_scale_cache, chunk_lookback)
    backend('attention', q).unified_attention(
        q, k, v, out, cu_seqlens_q, max_seqlen_q, seqused_k, max_seqlen_k, softmax_scale, causal, window_size,
        block_table,
        softcap, k_descale, v_descale, num_par_softmax_segments, softmax_segm_output, softmax_segm_max,
        softmax_segm_expsum, alibi_slopes, output_scale, sinks, use_alibi_sqrt, shared_prefix,
    )


def merge_attn_states(
    output: torch.Tensor,
    prefix_output: torch.Tensor,
    prefix_lse: torch.Tensor,
    suffix_output: torch.Tensor,
    suffix_lse: torch.Tensor,
    output_lse: torch.Tensor | None = None,
    prefill_tokens_with_context: int | None = None,
    output_scale: torch.Tensor | None = None,
) -> None:
    """Combine attention over two disjoint key ranges (Ye et al. 2025, FlashInfer, section 2.2).

    output, prefix_output, suffix_output [T, heads, head_size]; *_lse fp32 [heads, T], natural logarithm; +inf and
    -inf mean an empty range. Tokens from prefill_tokens_with_context on have no prefix: the suffix is copied.
    output_scale as in unified_attention.
    """
    backend('attention', output).merge_attn_states(
        output, prefix_output, prefix_lse, suffix_output, suffix_lse, output_lse, prefill_tokens_with_context,
        output_scale
    )
