"""Attention of new tokens in Triton: tiles of query rows over the packed cache first, then over the new keys."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.attention.triton import add_sink, attend_tile, blocks_of, finish, prompt_tiles, sequence_of
from swiftlite_kernels.cache.dtypes import cache_view, fp8_dtype
from swiftlite_kernels.paged_attention.triton import Layout, packed_layout
from swiftlite_kernels.triton import begin, early_launch, next_power_of_2, shared_memory


@triton.jit(do_not_specialize=['sequences'])
def context_kernel(
    q, k, v, out, k_cache, v_cache, starts, lengths, table, slopes, sinks, k_scale, v_scale, output_scale, scale,
    sequences, q_token, q_head, out_token, out_head, k_token, k_new_head, v_token, v_new_head,
    k_block, k_place, k_head, v_block, v_place, v_head, table_row,
    GROUP: tl.constexpr, CAUSAL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ALIBI: tl.constexpr,
    SINKS: tl.constexpr, CACHED: tl.constexpr, SCALED: tl.constexpr, OUTPUT_SCALE: tl.constexpr, LIMIT: tl.constexpr,
    SKIP_SINGLE: tl.constexpr, BLOCK_SIZE: tl.constexpr, PACK: tl.constexpr, K_CHUNK: tl.constexpr,
    V_DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (tile of ROWS // GROUP tokens of a sequence, key head); late tiles, which see most keys, start first."""
    begin(EARLY)
    TOKENS: tl.constexpr = ROWS // GROUP
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = sequence_of(starts, sequences, tile, TOKENS)
    start = tl.load(starts + sequence)
    count = tl.load(starts + sequence + 1) - start
    offset = (tile - (start // TOKENS + sequence)) * TOKENS
    if offset >= count:
        return
    if SKIP_SINGLE:
        if count == 1:
            return
    length = tl.load(lengths + sequence)
    before = length - count  # keys in the cache
    row, dim = tl.arange(0, ROWS), tl.arange(0, DIM_PAD)
    position = offset + row // GROUP
    head = kv_head * GROUP + row % GROUP
    valid = (row < TOKENS * GROUP) & (position < count)
    mask = valid[:, None] & (dim < DIM)[None, :]
    token = (start + position).to(tl.int64)
    query = tl.load(q + (token * q_token + head * q_head)[:, None] + dim[None, :], mask, other=0.0)
    query_pos = before + position
    alibi = tl.zeros([ROWS], tl.float32)
    if ALIBI:
        alibi = tl.load(slopes + head, valid, other=0.0).to(tl.float32)
    acc = tl.zeros([ROWS, DIM_PAD], tl.float32)
    top = tl.full([ROWS], float('-inf'), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    low = before * 0
    if LEFT >= 0:
        low = tl.maximum(before + offset - LEFT, 0) // KEYS * KEYS
    high = length
    if CAUSAL:
        high = tl.minimum(high, before + tl.minimum(offset + TOKENS, count))
    elif RIGHT >= 0:
        high = tl.minimum(high, before + tl.minimum(offset + TOKENS, count) + RIGHT)
    if CACHED:
        old_scale = scale
        if SCALED:
            old_scale *= tl.load(k_scale)
        row_table = table + sequence.to(tl.int64) * table_row
        for first in range(low, before, KEYS):
            acc, top, total = attend_tile(
                query, acc, top, total, k_cache + kv_head * k_head, v_cache + kv_head * v_head,
                blocks_of(row_table, first, before, BLOCK_SIZE, KEYS), alibi, first, before, query_pos, old_scale, 0.0,
                k_block, k_place, v_block, v_place,
                True, CAUSAL, LEFT, RIGHT, False, ALIBI, False, BLOCK_SIZE, KEYS, DIM, DIM_PAD, PRECISION,
                PACK, K_CHUNK, V_DIM, DIM, DIM_PAD,
            )
        if SCALED:
            acc *= tl.load(v_scale)
    # key position p of the new tokens stands at row start + p - before
    shift = (start - before).to(tl.int64)
    new_k = k + shift * k_token + kv_head * k_new_head
    new_v = v + shift * v_token + kv_head * v_new_head
    for first in range(tl.maximum(low, before), high, KEYS):
        acc, top, total = attend_tile(
            query, acc, top, total, new_k, new_v, 0, alibi, first, high, query_pos, scale, 0.0,
            0, k_token, 0, v_token,
            True, CAUSAL, LEFT, RIGHT, False, ALIBI, False, 0, KEYS, DIM, DIM_PAD, PRECISION,
        )
    if SINKS:
        acc, top, total = add_sink(acc, top, total, sinks, head, valid)
    at = (token * out_token + head * out_head)[:, None] + dim[None, :]
    finish(acc, total, out, at, mask, 1.0, output_scale, OUTPUT_SCALE, LIMIT)


def attend_new(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, starts: torch.Tensor, lengths: torch.Tensor,
    longest: int, scale: float, causal: bool, window: tuple[int, int], *, slopes: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None, output_scale: torch.Tensor | None = None, skip_single: bool = False,
    caches: tuple[torch.Tensor, torch.Tensor] | None = None, table: torch.Tensor | None = None,
    scales: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> None:
    """starts [B + 1] of the new tokens, lengths [B] with the cached ones; caches None: there are none."""
    sequences = lengths.shape[0]
    if q.shape[0] == 0 or sequences == 0:
        return
    for name, x in (('q', q), ('k', k), ('v', v), ('o', out)):
        if x.stride(-1) != 1:
            raise ValueError(f'{name}: head elements must be contiguous, got strides {x.stride()}')
    _, heads, dim = q.shape
    kv_heads = k.shape[1]
    group = heads // kv_heads
    tiles = prompt_tiles(group, dim, q.element_size(), longest, shared_memory(q.device))
    layout = packed_layout(*caches) if caches else Layout((0, 0, 0), (0, 0, 0), 1)
    context_kernel[(q.shape[0] // (tiles.rows // group) + sequences, kv_heads)](
        q, k, v, out, *(caches or (None, None)), starts, lengths, table, slopes, sinks, *(scales or (None, None)),
        output_scale, scale, sequences, *q.stride()[:2], *out.stride()[:2], *k.stride()[:2], *v.stride()[:2],
        *layout.k, *layout.v, 0 if table is None else table.stride(0),
        GROUP=group, CAUSAL=causal, LEFT=window[0], RIGHT=window[1], ALIBI=slopes is not None,
        SINKS=sinks is not None, CACHED=caches is not None, SCALED=scales is not None,
        OUTPUT_SCALE=output_scale is not None,
        LIMIT=torch.finfo(out.dtype).max if output_scale is not None else 0.0, SKIP_SINGLE=skip_single,
        BLOCK_SIZE=layout.block_size, PACK=layout.pack, K_CHUNK=layout.k_chunk, V_DIM=layout.v_dim, ROWS=tiles.rows,
        KEYS=min(tiles.keys, 64), DIM=dim, DIM_PAD=max(16, next_power_of_2(dim)),
        PRECISION='ieee' if q.dtype == torch.float32 else 'tf32', **early_launch(q), num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


def context_attention_fwd(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, o: torch.Tensor, kv_cache_dtype: str, k_cache: torch.Tensor,
    v_cache: torch.Tensor, b_loc: torch.Tensor, b_start_loc: torch.Tensor, b_seq_len: torch.Tensor,
    max_input_len: int, k_scale: torch.Tensor, v_scale: torch.Tensor, alibi_slopes: torch.Tensor | None, left: int,
    scale: float, skip_decode: bool, fp8_out_scale: torch.Tensor | None, sinks: torch.Tensor | None,
) -> None:
    stored = fp8_dtype(kv_cache_dtype)
    if stored is not None:
        k_cache, v_cache = cache_view(k_cache, stored), cache_view(v_cache, stored)
    attend_new(
        q, k, v, o, b_start_loc, b_seq_len, max_input_len, scale, True, (left, -1), slopes=alibi_slopes, sinks=sinks,
        output_scale=fp8_out_scale, skip_single=skip_decode, caches=(k_cache, v_cache), table=b_loc,
        scales=None if stored is None else (k_scale, v_scale),
    )
