"""Attention of single tokens to caches of vLLM's earlier layouts: packed keys, and pages of whole tokens."""

import torch

from swiftlite_kernels.dispatch import backend
from swiftlite_kernels.paged_attention.checks import PARTITION, check_buffers, check_packed

__all__ = ['decode_attention_fwd', 'paged_attention_v1', 'paged_attention_v2']


def paged_attention_v1(
    out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    num_kv_heads: int,
    scale: float,
    block_tables: torch.Tensor,
    seq_lens: torch.Tensor,
    block_size: int,
    max_seq_len: int,
    alibi_slopes: torch.Tensor | None,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    tp_rank: int = 0,
    blocksparse_local_blocks: int = 0,
    blocksparse_vert_stride: int = 0,
    blocksparse_block_size: int = 64,
    blocksparse_head_sliding_step: int = 0,
) -> None:
    """Attention of one token a sequence to its keys in a packed cache; writes out (Kwon et al. 2023, PagedAttention).

    out, query [B, q_heads, head_size], rows may be strided; key_cache [blocks, kv_heads, head_size / x, block_size, x],
    value_cache [blocks, kv_heads, head_size, block_size], any strides but the last of the keys; block_tables int32
    [B, max_blocks]; seq_lens int32 [B], the token's own key included, 0: out is zeros. Scores are q·k * scale
    + alibi slope * (key position - query position). kv_cache_dtype 'fp8', 'fp8_e4m3', 'fp8_e5m2': the caches hold
    key / k_scale and value / v_scale (one number each), of that dtype or as uint8. max_seq_len: at least the longest;
    it chooses the launch. Block-sparse arguments must be left at their defaults (ValueError); tp_rank is of them.
    """
    check_packed(query, key_cache, value_cache, num_kv_heads, block_size, blocksparse_vert_stride)
    backend('paged_attention', query).paged_attention_v1(
        out, query, key_cache, value_cache, scale, block_tables, seq_lens, max_seq_len, alibi_slopes, kv_cache_dtype,
        k_scale, v_scale,
    )  # fmt: skip


def paged_attention_v2(
    out: torch.Tensor,
    exp_sum: torch.Tensor,
    max_logits: torch.Tensor,
    tmp_out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    num_kv_heads: int,
    scale: float,
    block_tables: torch.Tensor,
    seq_lens: torch.Tensor,
    block_size: int,
    max_seq_len: int,
    alibi_slopes: torch.Tensor | None,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
    tp_rank: int = 0,
    blocksparse_local_blocks: int = 0,
    blocksparse_vert_stride: int = 0,
    blocksparse_block_size: int = 64,
    blocksparse_head_sliding_step: int = 0,
) -> None:
    """As paged_attention_v1, the keys in partitions of 512 that are computed apart.

    tmp_out [≥ B, q_heads, P, head_size], exp_sum and max_logits fp32 [≥ B, q_heads, P], P ≥ max_seq_len / 512: each
    partition's result, sum of exp(score - largest) and largest score. A GPU fills them as far as there are keys, a
    CPU does not. Results are rounded to tmp_out's dtype before they are added up.
    """
    check_packed(query, key_cache, value_cache, num_kv_heads, block_size, blocksparse_vert_stride)
    check_buffers(query, exp_sum, max_logits, tmp_out, -(-max_seq_len // PARTITION))
    backend('paged_attention', query).paged_attention_v2(
        out, exp_sum, max_logits, tmp_out, query, key_cache, value_cache, scale, block_tables, seq_lens, max_seq_len,
        alibi_slopes, kv_cache_dtype, k_scale, v_scale,
    )  # fmt: skip


def decode_attention_fwd(
    q: torch.Tensor,
    k_buffer: torch.Tensor,
    v_buffer: torch.Tensor,
    o: torch.Tensor,
    lse: torch.Tensor,
    req_to_token: torch.Tensor,
    b_seq_len: torch.Tensor,
    attn_logits: torch.Tensor,
    num_kv_splits: int,
    sm_scale: float,
    page_size: int = 1,
    logit_cap: float = 0.0,
    k_scale: torch.Tensor | None = None,
    v_scale: torch.Tensor | None = None,
    is_mla: bool = False,
) -> None:
    """Attention of one token a sequence to keys in pages; writes o and lse (Dao et al. 2023, Flash-Decoding).

    q [B, q_heads, d]; k_buffer [pages, page_size, kv_heads, d] or [pages * page_size, kv_heads, d], v_buffer the same
    with any head size e (a part of k_buffer for latent attention); o [B, q_heads, e]; lse fp32 [B, q_heads], natural
    logarithm, -inf for a sequence without keys; req_to_token int32 [B, max_pages] page numbers; b_seq_len int32 [B].
    attn_logits fp32 [≥ B, q_heads, num_kv_splits, e + 1] is scratch. Scores are q·k * sm_scale, then
    logit_cap * tanh(score / logit_cap) where logit_cap > 0. k_scale, v_scale: factors of fp8 buffers (uint8 reads as
    float8_e4m3fn). is_mla changes no result and is not used.
    """
    heads = q.shape[1]
    least = (q.shape[0], heads, num_kv_splits, v_buffer.shape[-1] + 1)
    if attn_logits.dim() != 4 or any(a < b for a, b in zip(attn_logits.shape, least, strict=True)):
        raise ValueError(f'attn_logits must be at least {least}, got {tuple(attn_logits.shape)}')
    if k_buffer.dim() == 4 and k_buffer.shape[1] != page_size:
        raise ValueError(f'k_buffer has pages of {k_buffer.shape[1]} tokens, not {page_size}')
    if heads % k_buffer.shape[-2]:
        raise ValueError(f'{heads} query heads are no multiple of {k_buffer.shape[-2]} key heads')
    backend('paged_attention', q).decode_attention_fwd(
        q, k_buffer, v_buffer, o, lse, req_to_token, b_seq_len, attn_logits, num_kv_splits, sm_scale, page_size,
        logit_cap, k_scale, v_scale,
    )  # fmt: skip
