"""Attention of single tokens in Triton, over any layout of the cache: keys are split, a second kernel adds them up."""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from swiftlite_kernels.attention.triton import Tiles, attend_tile, blocks_of, own_share, split_count
from swiftlite_kernels.cache.dtypes import cache_view, fp8_dtype
from swiftlite_kernels.paged_attention.checks import PARTITION
from swiftlite_kernels.triton import LOG2E, begin, early_launch, next_power_of_2

LN2 = tl.constexpr(1 / LOG2E)
AT_ONCE = 8  # parts that are added up in one step


@triton.jit
def share_of(length, splits, partition, KEYS: tl.constexpr):
    """Keys of a split: `partition`, or an even share where that is 0."""
    return tl.where(partition > 0, partition, own_share(length, splits, splits, KEYS))


@triton.jit(do_not_specialize=['splits', 'partition'])
def decode_kernel(
    q, k, v, out, lse, part_out, part_top, part_total, lengths, table, slopes, k_scale, v_scale, scale, softcap,
    splits, partition, q_token, q_head, out_token, out_head, lse_token, lse_head,
    k_block, k_place, k_head, v_block, v_place, v_head, table_row,
    part_out_token, part_out_head, part_out_split, part_token, part_head, part_split,
    GROUP: tl.constexpr, SOFTCAP: tl.constexpr, ALIBI: tl.constexpr, K_SCALE: tl.constexpr, V_SCALE: tl.constexpr,
    LSE: tl.constexpr, DIRECT: tl.constexpr, TOTALS: tl.constexpr, BLOCK_SIZE: tl.constexpr, PACK: tl.constexpr,
    K_CHUNK: tl.constexpr, V_DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr,
    DIM_PAD: tl.constexpr, V_SIZE: tl.constexpr, V_PAD: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (sequence, key head, split); DIRECT: there is one split, which writes the result itself."""
    begin(EARLY)
    sequence, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.load(lengths + sequence)
    share = share_of(length, splits, partition, KEYS)
    low = split * share
    if (split > 0) & (low >= length):
        return
    high = tl.minimum(low + share, length)
    row, dim, v_dim = tl.arange(0, ROWS), tl.arange(0, DIM_PAD), tl.arange(0, V_PAD)
    head = kv_head * GROUP + row
    in_group = row < GROUP
    mask = in_group[:, None] & (v_dim < V_SIZE)[None, :]
    query = tl.load(
        q + sequence * q_token + head[:, None] * q_head + dim[None, :], in_group[:, None] & (dim < DIM)[None, :],
        other=0.0,
    )
    query_pos = tl.zeros([ROWS], tl.int32) + length - 1
    alibi = tl.zeros([ROWS], tl.float32)
    if ALIBI:
        alibi = tl.load(slopes + head, in_group, other=0.0).to(tl.float32)
    factor = 1.0
    if K_SCALE:
        scale *= tl.load(k_scale)
    if V_SCALE:
        factor = tl.load(v_scale)
    acc = tl.zeros([ROWS, V_PAD], tl.float32)
    top = tl.full([ROWS], float('-inf'), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(low, high, KEYS):
        acc, top, total = attend_tile(
            query, acc, top, total, k + kv_head * k_head, v + kv_head * v_head,
            blocks_of(table + sequence * table_row, first, high, BLOCK_SIZE, KEYS), alibi, first, high, query_pos,
            scale, softcap, k_block, k_place, v_block, v_place,
            True, False, -1, -1, SOFTCAP, ALIBI, False, BLOCK_SIZE, KEYS, DIM, DIM_PAD, PRECISION,
            PACK, K_CHUNK, V_DIM, V_SIZE, V_PAD,
        )
    some = tl.where(total == 0.0, 1.0, total)
    result = acc * (factor / some)[:, None]
    logarithm = tl.where(total == 0.0, float('-inf'), (top + tl.log2(some)) * LN2)
    if DIRECT:
        at = sequence * out_token + head[:, None] * out_head + v_dim[None, :]
        tl.store(out + at, result.to(out.dtype.element_ty), mask)
        if LSE:
            tl.store(lse + sequence * lse_token + head * lse_head, logarithm, in_group)
    else:
        at = sequence * part_out_token + head * part_out_head + split * part_out_split
        tl.store(part_out + at[:, None] + v_dim[None, :], result.to(part_out.dtype.element_ty), mask)
        at = sequence * part_token + head * part_head + split * part_split
        if TOTALS:
            tl.store(part_top + at, top * LN2, in_group)
            tl.store(part_total + at, total, in_group)
        else:
            tl.store(part_top + at, logarithm, in_group)


@triton.jit(do_not_specialize=['splits', 'partition'])
def add_parts_kernel(
    out, lse, part_out, part_top, part_total, lengths, splits, partition, out_token, out_head, lse_token, lse_head,
    part_out_token, part_out_head, part_out_split, part_token, part_head, part_split,
    LSE: tl.constexpr, TOTALS: tl.constexpr, KEYS: tl.constexpr, V_SIZE: tl.constexpr, V_PAD: tl.constexpr,
    AT_ONCE: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (sequence, query head): the parts weighted by their sums; tops are natural logarithms."""
    begin(EARLY)
    sequence, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + sequence)
    used = tl.maximum(tl.cdiv(length, share_of(length, splits, partition, KEYS)), 1)
    v_dim = tl.arange(0, V_PAD)
    acc = tl.zeros([V_PAD], tl.float32)
    top = tl.full([], float('-inf'), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    for first in range(0, used, AT_ONCE):
        part = first + tl.arange(0, AT_ONCE)
        at = sequence * part_token + head * part_head + part * part_split
        tops = tl.load(part_top + at, part < used, other=float('-inf'))
        new_top = tl.maximum(top, tl.max(tops, 0))
        shift = tl.where(new_top == float('-inf'), 0.0, new_top)
        weight = tl.exp(tops - shift)
        if TOTALS:
            weight *= tl.load(part_total + at, part < used, other=0.0)
        at = sequence * part_out_token + head * part_out_head + part * part_out_split
        parts = tl.load(
            part_out + at[:, None] + v_dim[None, :], (part < used)[:, None] & (v_dim < V_SIZE)[None, :], other=0.0
        )
        shrink = tl.exp(top - shift)
        acc = acc * shrink + tl.sum(parts.to(tl.float32) * weight[:, None], 0)
        total = total * shrink + tl.sum(weight, 0)
        top = new_top
    result = acc / tl.where(total == 0.0, 1.0, total)
    tl.store(out + sequence * out_token + head * out_head + v_dim, result.to(out.dtype.element_ty), v_dim < V_SIZE)
    if LSE:
        logarithm = tl.where(total == 0.0, float('-inf'), top + tl.log(tl.where(total == 0.0, 1.0, total)))
        tl.store(lse + sequence * lse_token + head * lse_head, logarithm)


@dataclass(frozen=True)
class Parts:
    """Where results of splits are kept: out [B, heads, splits, e], top and total [B, heads, splits]."""

    out: torch.Tensor
    top: torch.Tensor  # with total: the largest score, without: the logarithm of the sum
    total: torch.Tensor | None


@dataclass(frozen=True)
class Layout:
    """How keys and values lie: (block, place, head) strides, and how the elements of one lie."""

    k: tuple[int, int, int]
    v: tuple[int, int, int]
    block_size: int
    pack: int = 0
    k_chunk: int = 0
    v_dim: int = 1


def packed_layout(key_cache: torch.Tensor, value_cache: torch.Tensor) -> Layout:
    """That of the caches of paged_attention_v1."""
    if key_cache.stride(4) != 1:
        raise ValueError(f'key_cache: the last dimension must be contiguous, got strides {key_cache.stride()}')
    k_block, k_head, k_chunk, k_place, _ = key_cache.stride()
    v_block, v_head, v_dim, v_place = value_cache.stride()
    return Layout(
        (k_block, k_place, k_head), (v_block, v_place, v_head), key_cache.shape[3], key_cache.shape[4], k_chunk, v_dim
    )


def decode_tiles(group: int, dim: int, itemsize: int) -> Tiles:
    """Launch sizes; heads above 256 leave room for few keys."""
    rows = max(16, next_power_of_2(group))
    if dim > 256:
        return Tiles(rows, 16, 4, 1)
    return Tiles(rows, 128 if itemsize < 4 and dim <= 128 else 32, 4, 2)


def decode(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, lse: torch.Tensor | None, kv_heads: int,
    layout: Layout, table: torch.Tensor, lengths: torch.Tensor, scale: float, softcap: float,
    slopes: torch.Tensor | None, k_scale: torch.Tensor | None, v_scale: torch.Tensor | None, splits: int,
    partition: int, parts: Parts | None,
) -> None:
    """parts None: one split."""
    sequences, heads, dim = q.shape
    if sequences == 0:
        return
    for name, x in (('query', q), ('out', out)):
        if x.stride(-1) != 1:
            raise ValueError(f'{name}: head elements must be contiguous, got strides {x.stride()}')
    size, group = out.shape[-1], heads // kv_heads
    tiles = decode_tiles(group, max(dim, size), q.element_size())
    out_strides = (*out.stride()[:2], *((0, 0) if lse is None else lse.stride()[:2]))
    part_strides = (0,) * 6 if parts is None else (*parts.out.stride()[:3], *parts.top.stride()[:3])
    kept = (None, None, None) if parts is None else (parts.out, parts.top, parts.total)
    totals = parts is not None and parts.total is not None
    sizes = {'KEYS': tiles.keys, 'V_SIZE': size, 'V_PAD': max(16, next_power_of_2(size))}
    decode_kernel[(sequences, kv_heads, splits)](
        q, k, v, out, lse, *kept, lengths, table, slopes, k_scale, v_scale, scale, softcap, splits, partition,
        *q.stride()[:2], *out_strides, *layout.k, *layout.v, table.stride(0), *part_strides,
        GROUP=group, SOFTCAP=softcap > 0, ALIBI=slopes is not None, K_SCALE=k_scale is not None,
        V_SCALE=v_scale is not None, LSE=lse is not None, DIRECT=parts is None, TOTALS=totals,
        BLOCK_SIZE=layout.block_size, PACK=layout.pack, K_CHUNK=layout.k_chunk, V_DIM=layout.v_dim, ROWS=tiles.rows,
        DIM=dim, DIM_PAD=max(16, next_power_of_2(dim)), PRECISION='ieee' if q.dtype == torch.float32 else 'tf32',
        **sizes, **early_launch(q), num_warps=tiles.warps, num_stages=tiles.stages,
    )
    if parts is not None:
        add_parts_kernel[(sequences, heads)](
            out, lse, *kept, lengths, splits, partition, *out_strides, *part_strides, LSE=lse is not None,
            TOTALS=totals, AT_ONCE=AT_ONCE, **sizes, **early_launch(q), num_warps=2,
        )


def paged_attention_v1(
    out: torch.Tensor, query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, scale: float,
    block_tables: torch.Tensor, seq_lens: torch.Tensor, max_seq_len: int, alibi_slopes: torch.Tensor | None,
    kv_cache_dtype: str, k_scale: torch.Tensor, v_scale: torch.Tensor,
) -> None:
    sequences, heads, dim = query.shape
    kv_heads = key_cache.shape[1]
    splits = split_count(max(sequences, 1), kv_heads, max_seq_len, query.device)
    parts = None
    if splits > 1:
        room = torch.empty(sequences, heads, splits, dim + 1, dtype=torch.float32, device=query.device)
        parts = Parts(room[..., :dim], room[..., dim], None)
    packed(
        out, query, key_cache, value_cache, scale, block_tables, seq_lens, alibi_slopes, kv_cache_dtype, k_scale,
        v_scale, splits, 0, parts,
    )


def paged_attention_v2(
    out: torch.Tensor, exp_sum: torch.Tensor, max_logits: torch.Tensor, tmp_out: torch.Tensor, query: torch.Tensor,
    key_cache: torch.Tensor, value_cache: torch.Tensor, scale: float, block_tables: torch.Tensor,
    seq_lens: torch.Tensor, max_seq_len: int, alibi_slopes: torch.Tensor | None, kv_cache_dtype: str,
    k_scale: torch.Tensor, v_scale: torch.Tensor,
) -> None:
    if exp_sum.stride() != max_logits.stride():
        raise ValueError(f'exp_sum {exp_sum.stride()} and max_logits {max_logits.stride()} must have the same strides')
    packed(
        out, query, key_cache, value_cache, scale, block_tables, seq_lens, alibi_slopes, kv_cache_dtype, k_scale,
        v_scale, max(1, triton.cdiv(max_seq_len, PARTITION)), PARTITION, Parts(tmp_out, max_logits, exp_sum),
    )


def packed(
    out: torch.Tensor, query: torch.Tensor, key_cache: torch.Tensor, value_cache: torch.Tensor, scale: float,
    block_tables: torch.Tensor, seq_lens: torch.Tensor, alibi_slopes: torch.Tensor | None, kv_cache_dtype: str,
    k_scale: torch.Tensor, v_scale: torch.Tensor, splits: int, partition: int, parts: Parts | None,
) -> None:
    stored = fp8_dtype(kv_cache_dtype)
    if stored is not None:
        key_cache, value_cache = cache_view(key_cache, stored), cache_view(value_cache, stored)
    decode(
        query, key_cache, value_cache, out, None, key_cache.shape[1], packed_layout(key_cache, value_cache),
        block_tables, seq_lens, scale, 0.0, alibi_slopes, None if stored is None else k_scale,
        None if stored is None else v_scale, splits, partition, parts,
    )


def decode_attention_fwd(
    q: torch.Tensor, k_buffer: torch.Tensor, v_buffer: torch.Tensor, o: torch.Tensor, lse: torch.Tensor,
    req_to_token: torch.Tensor, b_seq_len: torch.Tensor, attn_logits: torch.Tensor, num_kv_splits: int,
    sm_scale: float, page_size: int, logit_cap: float, k_scale: torch.Tensor | None, v_scale: torch.Tensor | None,
) -> None:
    if k_buffer.dtype == torch.uint8:
        k_buffer, v_buffer = (cache_view(x, torch.float8_e4m3fn) for x in (k_buffer, v_buffer))
    if k_buffer.stride(-1) != 1 or v_buffer.stride(-1) != 1:
        raise ValueError(f'head elements must be contiguous, got strides {k_buffer.stride()} and {v_buffer.stride()}')
    if k_buffer.element_size() > 1:
        k_scale = v_scale = None
    strides = []
    for x in (k_buffer, v_buffer):
        place = x.stride(-3)
        strides.append((x.stride(0) if x.dim() == 4 else place * page_size, place, x.stride(-2)))
    size = v_buffer.shape[-1]
    parts = Parts(attn_logits[..., :size], attn_logits[..., size], None) if num_kv_splits > 1 else None
    decode(
        q, k_buffer, v_buffer, o, lse, k_buffer.shape[-2], Layout(strides[0], strides[1], page_size), req_to_token,
        b_seq_len, sm_scale, logit_cap, None, k_scale, v_scale, num_kv_splits, 0, parts,
    )
