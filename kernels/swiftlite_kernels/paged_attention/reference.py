"""Attention of single tokens in torch, sequence by sequence."""

import torch

from swiftlite_kernels.attention.reference import Scoring
from swiftlite_kernels.cache.dtypes import cache_view, fp8_dtype


def paged_attention_v1(
    out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    scale: float,
    block_tables: torch.Tensor,
    seq_lens: torch.Tensor,
    max_seq_len: int,
    alibi_slopes: torch.Tensor | None,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> None:
    scoring = Scoring(scale, True, (-1, -1), 0.0, alibi_slopes, False, None)
    for i, length in enumerate(seq_lens.tolist()):
        k, v = read_packed(key_cache, value_cache, block_tables[i], length, kv_cache_dtype, k_scale, v_scale)
        out[i] = attend_one(query[i], k, v, scoring)[0].to(out.dtype)


def paged_attention_v2(
    out: torch.Tensor, exp_sum: torch.Tensor, max_logits: torch.Tensor, tmp_out: torch.Tensor, *args: object
) -> None:
    paged_attention_v1(out, *args)  # type: ignore[arg-type]


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
    page_size: int,
    logit_cap: float,
    k_scale: torch.Tensor | None,
    v_scale: torch.Tensor | None,
) -> None:
    scoring = Scoring(sm_scale, True, (-1, -1), logit_cap, None, False, None)
    buffers = [x if x.dim() == 4 else x.unflatten(0, (-1, page_size)) for x in (k_buffer, v_buffer)]
    for i, length in enumerate(b_seq_len.tolist()):
        pages = req_to_token[i, : -(-length // page_size)].long()
        k, v = (
            decode_fp8(cache_view(x, torch.uint8)[pages] if x.element_size() == 1 else x[pages], x.dtype, scale)
            .flatten(0, 1)[:length]
            for x, scale in zip(buffers, (k_scale, v_scale), strict=True)
        )  # fmt: skip
        result, lse[i] = attend_one(q[i], k, v, scoring)
        o[i] = result.to(o.dtype)


def read_packed(
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    blocks: torch.Tensor,
    length: int,
    kv_cache_dtype: str,
    k_scale: torch.Tensor,
    v_scale: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `length` keys and values of the packed caches, each [length, kv_heads, head_size]."""
    stored = fp8_dtype(kv_cache_dtype)
    blocks = blocks[: -(-length // key_cache.shape[3])].long()
    if stored is not None:  # indexing knows no fp8
        key_cache, value_cache = cache_view(key_cache, torch.uint8), cache_view(value_cache, torch.uint8)
    k = key_cache[blocks].permute(0, 3, 1, 2, 4).flatten(-2).flatten(0, 1)[:length]
    v = value_cache[blocks].permute(0, 3, 1, 2).flatten(0, 1)[:length]
    if stored is None:
        return k, v
    return decode_fp8(k, stored, k_scale), decode_fp8(v, stored, v_scale)


def decode_fp8(x: torch.Tensor, dtype: torch.dtype, scale: torch.Tensor | None) -> torch.Tensor:
    """Bytes of fp8 numbers times their factor, fp32; wider numbers as they are."""
    if x.element_size() > 1:
        return x
    wide = x.view(torch.float8_e4m3fn if dtype == torch.uint8 else dtype).float()
    return wide if scale is None else wide * scale


def attend_one(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [heads, d], k [n, kv_heads, d], v [n, kv_heads, e] → fp32 [heads, e] and log sum exp of the scores [heads]."""
    heads, kv_heads = q.shape[0], k.shape[1]
    grouped = q.float().unflatten(0, (kv_heads, -1))
    scores = torch.einsum('hgd,nhd->hgn', grouped, k.float()).flatten(0, 1) * scoring.scale
    if scoring.softcap > 0:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    positions = torch.arange(k.shape[0], device=q.device)
    bias = scoring.bias(positions[-1:], positions)
    if bias is not None:
        scores = scores + bias
    if not k.shape[0]:
        return q.new_zeros(heads, v.shape[-1], dtype=torch.float32), scores.new_full((heads,), float('-inf'))
    weights = scores.softmax(-1).unflatten(0, (kv_heads, -1))
    return torch.einsum('hgn,nhe->hge', weights, v.float()).flatten(0, 1), scores.logsumexp(-1)
