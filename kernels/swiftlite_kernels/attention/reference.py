"""Paged attention in torch: prompts one by one, decodes in a few padded groups of similar length."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F

from swiftlite_kernels.cache.dtypes import cache_view

MAX_PADDING = 1.25  # a decode group's longest sequence over its shortest
MAX_GATHERED = 1 << 18  # elements of keys a decode group copies: larger ones leave the processor's cache


@dataclass(frozen=True)
class Scoring:
    """How scores become weights; see unified_attention."""

    scale: float
    causal: bool
    window: tuple[int, int]
    softcap: float
    alibi_slopes: torch.Tensor | None
    alibi_sqrt: bool
    sinks: torch.Tensor | None

    def mask(self, query_pos: torch.Tensor, key_pos: torch.Tensor) -> torch.Tensor:
        """Which keys a query sees, bool, from broadcastable positions."""
        distance = query_pos - key_pos
        seen = torch.ones_like(distance, dtype=torch.bool)
        if self.causal:
            seen &= distance >= 0
        if self.window[0] >= 0:
            seen &= distance <= self.window[0]
        if self.window[1] >= 0:
            seen &= -distance <= self.window[1]
        return seen

    def bias(self, query_pos: torch.Tensor, key_pos: torch.Tensor) -> torch.Tensor | None:
        """ALiBi, fp32 [heads, *distances] (Press et al. 2022)."""
        if self.alibi_slopes is None:
            return None
        distance = (query_pos - key_pos).float()
        curve = -distance.clamp(min=0).sqrt() if self.alibi_sqrt else -distance
        return self.alibi_slopes.float().reshape(-1, *[1] * distance.dim()) * curve


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
    k_descale: torch.Tensor | None,
    v_descale: torch.Tensor | None,
    num_par_softmax_segments: int | None,
    softmax_segm_output: torch.Tensor | None,
    softmax_segm_max: torch.Tensor | None,
    softmax_segm_expsum: torch.Tensor | None,
    alibi_slopes: torch.Tensor | None,
    output_scale: torch.Tensor | None,
    sinks: torch.Tensor | None,
    use_alibi_sqrt: bool,
    shared_prefix: torch.Tensor | None = None,
) -> None:
    scoring = Scoring(softmax_scale, causal, window_size, softcap, alibi_slopes, use_alibi_sqrt, sinks)
    cache = PagedCache(k, v, block_table, k_descale, v_descale)
    starts, lengths = cu_seqlens_q.tolist(), seqused_k.tolist()
    for i, length in enumerate(lengths):
        first, last = starts[i], starts[i + 1]
        if length == 0:
            out[first:last] = 0
        elif last - first > 1:
            store(out[first:last], attend_prompt(q[first:last], *cache.read(i, length), scoring), output_scale)
    groups = decode_groups(
        tuple(starts),
        tuple(lengths),
        block_table.numpy().tobytes(),
        block_table.dtype,
        k.shape[1],
        MAX_GATHERED // (k.shape[2] * k.shape[3]),
    )
    scratch = k.new_empty(2, max((g.blocks.shape[0] for g in groups), default=0), *k.shape[1:])
    for group in groups:
        result = attend_decodes(q[group.rows], *cache.read_many(group, scratch), group, scoring)
        out[group.rows] = scaled(result, out.dtype, output_scale)


@dataclass(frozen=True)
class DecodeGroup:
    """N sequences of one query token and similar length, padded to the longest."""

    sequences: list[int]
    rows: torch.Tensor  # [N], their query tokens
    blocks: torch.Tensor  # [N * n], flat
    longest: int
    lengths: torch.Tensor  # [N]
    seen: torch.Tensor | None  # bool [N, longest], None when all are of one length
    padding: torch.Tensor | None  # places past a sequence's end in the flat [N * n * block_size]


@lru_cache(maxsize=4)
def decode_groups(
    starts: tuple[int, ...], lengths: tuple[int, ...], table: bytes, dtype: torch.dtype, block_size: int, places: int
) -> list[DecodeGroup]:
    """The single-token sequences of a batch; every layer of a step asks for the same."""
    decodes = [i for i, n in enumerate(lengths) if n > 0 and starts[i + 1] - starts[i] == 1]
    if not decodes:
        return []
    block_table = torch.frombuffer(bytearray(table), dtype=dtype).view(len(lengths), -1)
    groups = []
    for group in groups_by_length(decodes, lengths, places):
        used = torch.tensor([lengths[i] for i in group])
        longest = int(used.max())
        width = -(-longest // block_size)
        # entries past a sequence's last block may hold anything: read its first block instead
        blocks = block_table[group, :width]
        blocks = torch.where(torch.arange(width) < -(-used // block_size)[:, None], blocks, blocks[:, :1])
        seen = torch.arange(width * block_size) < used[:, None]
        equal = bool((used == longest).all())
        groups.append(
            DecodeGroup(
                group,
                torch.tensor([starts[i] for i in group]),
                blocks.flatten(),
                longest,
                used,
                None if equal else seen[:, :longest],
                None if equal else (~seen).flatten().nonzero()[:, 0],
            )
        )
    return groups


@dataclass(frozen=True)
class PagedCache:
    """Reads sequences out of key and value blocks."""

    k: torch.Tensor
    v: torch.Tensor
    block_table: torch.Tensor
    k_descale: torch.Tensor | None
    v_descale: torch.Tensor | None

    def read(self, i: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of sequence i, each [length, kv_heads, head_size]."""
        used = -(-length // self.k.shape[1])
        blocks = self.block_table[i, :used]
        k, v = gather(self.k, blocks), gather(self.v, blocks)
        return dequantize(k[:length], self.k_descale, i), dequantize(v[:length], self.v_descale, i)

    def read_many(self, group: DecodeGroup, scratch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [N, longest, kv_heads, head_size], zero past a sequence's end.

        scratch: room for any group; fresh memory for each would cost more than the copies.
        """
        found = []
        for cache, room, descale in ((self.k, scratch[0], self.k_descale), (self.v, scratch[1], self.v_descale)):
            x = gather(cache, group.blocks, room)
            if group.padding is not None:  # never written, or another sequence's: not even NaN may come through
                (cache_view(x, torch.uint8) if x.element_size() == 1 else x).index_fill_(0, group.padding, 0)
            x = x.view(len(group.sequences), -1, *x.shape[1:])[:, : group.longest]
            found.append(dequantize(x, descale, group.sequences))
        return found[0], found[1]


def gather(cache: torch.Tensor, blocks: torch.Tensor, scratch: torch.Tensor | None = None) -> torch.Tensor:
    """Blocks as one run of places [len(blocks) * block_size, kv_heads, head_size], in scratch where that is faster."""
    if cache.element_size() == 1:  # indexing knows no fp8: move the bytes
        fp8 = torch.float8_e4m3fn if cache.dtype == torch.uint8 else cache.dtype
        return cache_view(cache_view(cache, torch.uint8)[blocks], fp8).flatten(0, 1)
    if not cache[0].is_contiguous():
        return cache[blocks].flatten(0, 1)
    # whole rows: several times faster than indexing
    out = None if scratch is None else scratch[: blocks.shape[0]].flatten(1)
    return torch.index_select(cache.flatten(1), 0, blocks, out=out).view(-1, *cache.shape[2:])


def dequantize(x: torch.Tensor, descale: torch.Tensor | None, sequence: int | list[int]) -> torch.Tensor:
    """Places times their fp8 factor, fp32 for an fp8 cache."""
    if x.element_size() == 1:
        x = x.float()
    if descale is None:
        return x
    factors = descale.expand(-1, x.shape[-2])[sequence].unsqueeze(-1)  # [(N,) kv_heads, 1]
    return x * (factors.unsqueeze(1) if x.dim() == 4 else factors).to(x.dtype)


def groups_by_length(sequences: list[int], lengths: Sequence[int], places: int) -> list[list[int]]:
    """Groups of similar length that pad to at most `places` places (or are single), each in ascending order."""
    ordered = sorted(sequences, key=lengths.__getitem__)
    groups: list[list[int]] = []
    start = 0
    for end in range(1, len(ordered) + 1):
        if end < len(ordered):
            shortest, longest = lengths[ordered[start]], lengths[ordered[end]]
            similar = longest <= max(MAX_PADDING * shortest, shortest + 32)
            if similar and longest * (end - start + 1) <= places:
                continue
        groups.append(sorted(ordered[start:end]))
        start = end
    return groups


def attend_prompt(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scoring: Scoring) -> torch.Tensor:
    """One sequence: q [n, heads, d] are the last n of the positions of k, v [m, kv_heads, d]."""
    n, m = q.shape[0], k.shape[0]
    q, k, v = q.transpose(0, 1)[None], k.transpose(0, 1)[None].to(q.dtype), v.transpose(0, 1)[None].to(q.dtype)
    if n == m and scoring.causal and scoring.window == (-1, -1) and is_plain(scoring):
        result = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scoring.scale, enable_gqa=True)
        return result[0].transpose(0, 1)
    query_pos, key_pos = torch.arange(m - n, m)[:, None], torch.arange(m)
    mask, bias = scoring.mask(query_pos, key_pos), scoring.bias(query_pos, key_pos)
    return attend(q, k, v, mask[None, None], None if bias is None else bias[None], scoring)[0].transpose(0, 1)


def attend_decodes(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, group: DecodeGroup, scoring: Scoring
) -> torch.Tensor:
    """q [N, heads, d], one token a sequence; k, v [N, longest, kv_heads, d]."""
    n, heads, d = q.shape
    kv_heads = k.shape[2]
    k, v = k.transpose(1, 2).to(q.dtype), v.transpose(1, 2).to(q.dtype)
    bias = mask = None
    if group.seen is not None:
        mask = group.seen[:, None, None]
    if scoring.window != (-1, -1) or scoring.alibi_slopes is not None:
        last, key_pos = group.lengths[:, None] - 1, torch.arange(group.longest)
        mask = (scoring.mask(last, key_pos) & (key_pos <= last))[:, None, None]
        bias = scoring.bias(last, key_pos)  # [heads, N, longest]
        bias = None if bias is None else bias.transpose(0, 1).unflatten(1, (kv_heads, -1))
    packed = q.view(n, kv_heads, -1, d) if q.is_contiguous() else q.reshape(n, kv_heads, -1, d)  # group as query rows
    if is_plain(scoring):
        result = attend(packed, k, v, mask, bias, scoring)
    else:
        bias = None if bias is None else bias.flatten(1, 2).unsqueeze(2)
        result = attend(q.unsqueeze(2), k, v, mask, bias, scoring)
    return result.reshape(n, heads, d)


def is_plain(scoring: Scoring) -> bool:
    return scoring.softcap == 0 and scoring.sinks is None and scoring.alibi_slopes is None


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    bias: torch.Tensor | None,
    scoring: Scoring,
) -> torch.Tensor:
    """softmax(scores) v for q [N, heads, n, d], k, v [N, kv_heads, m, d]; mask, bias broadcast to [N, heads, n, m]."""
    if scoring.softcap == 0 and scoring.sinks is None:
        if bias is not None:
            mask = bias.to(q.dtype) if mask is None else bias.to(q.dtype).masked_fill(~mask, float('-inf'))
        gqa = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scoring.scale, enable_gqa=gqa)
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1).float(), v.repeat_interleave(repeat, 1).float()
    scores = q.float() @ k.transpose(-1, -2) * scoring.scale
    if scoring.softcap > 0:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, float('-inf'))
    if scoring.sinks is not None:
        sink = scoring.sinks.float().view(-1, 1, 1).expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, sink], -1).softmax(-1)[..., :-1]
    else:
        weights = scores.softmax(-1)
    return (weights @ v).to(q.dtype)


def scaled(x: torch.Tensor, dtype: torch.dtype, output_scale: torch.Tensor | None) -> torch.Tensor:
    """x in the output's dtype, divided by output_scale and saturated when there is one."""
    if output_scale is None:
        return x.to(dtype)
    limit = torch.finfo(dtype).max
    return (x.float() / output_scale).clamp(-limit, limit).to(dtype)


def store(out: torch.Tensor, x: torch.Tensor, output_scale: torch.Tensor | None) -> None:
    out.copy_(scaled(x, out.dtype, output_scale))


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
    inf = float('inf')
    lse = torch.stack([prefix_lse, suffix_lse])  # [2, heads, T]
    lse = lse.masked_fill(lse == inf, -inf)
    if prefill_tokens_with_context is not None:
        lse[0, :, prefill_tokens_with_context:] = -inf
    top = lse.amax(0)
    weights = torch.exp(lse - top.masked_fill(top == -inf, 0))
    total = weights.sum(0)
    parts = (weights / total.masked_fill(total == 0, 1)).transpose(1, 2).unsqueeze(-1)  # [2, T, heads, 1]
    empty = parts == 0  # an empty range may hold anything, NaN included
    prefix = (prefix_output.float() * parts[0]).masked_fill(empty[0], 0)
    suffix = (suffix_output.float() * parts[1]).masked_fill(empty[1], 0)
    store(output, prefix + suffix, output_scale)
    if output_lse is not None:
        output_lse.copy_(top + torch.log(total))
