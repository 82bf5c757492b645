"""Paged attention in Triton.

Single tokens go to a split kernel: a program takes the query heads of one key head of one sequence over a share of
its keys, and a second kernel adds the shares up. Keys that sequences share are read once for many of them (Juravsky
et al. 2024, Hydragen; Ye et al. 2025, FlashInfer). Longer queries go to a tile kernel, whose rows are the query heads
of one key head for a run of tokens. Both find their work on the device, so that a captured launch serves every batch
of its size. Softmax is kept online in base 2 (Dao 2023, FlashAttention-2; split keys: Flash-Decoding).
"""

from dataclasses import dataclass
from math import log2

import torch
import triton
import triton.language as tl

from swiftlite_kernels.cache.dtypes import cache_view
from swiftlite_kernels.triton import LOG2E, begin, early_launch, multiprocessors, next_power_of_2, shared_memory, tanh

LN2_INVERSE = tl.constexpr(LOG2E)
MAX_SPLITS = 64
MIN_SHARE = tl.constexpr(128)  # keys of a split
LONG_SHARE = tl.constexpr(1024)  # above it a sequence takes more splits than it needs to fill the device


@dataclass(frozen=True)
class Tiles:
    """Sizes of one kernel launch."""

    rows: int  # query rows (tokens x heads of one key head) of a program
    keys: int  # keys of a loop step
    warps: int
    stages: int


@triton.jit
def blocks_of(table, first, end, BLOCK_SIZE: tl.constexpr, KEYS: tl.constexpr):
    """Block numbers of keys first + [0, KEYS), or the one number where a block holds them all; before `end` only."""
    if BLOCK_SIZE % KEYS == 0:
        blocks = tl.load(table + first // BLOCK_SIZE, first < end, other=0)
    else:
        keys = first + tl.arange(0, KEYS)
        blocks = tl.load(table + keys // BLOCK_SIZE, keys < end, other=0)
    return blocks


@triton.jit
def attend_tile(
    query, acc, top, total, k, v, blocks, alibi, first, end, query_pos, scale, softcap,
    k_block, k_place, v_block, v_place,
    MASKED: tl.constexpr, CAUSAL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, SOFTCAP: tl.constexpr,
    ALIBI: tl.constexpr, ALIBI_SQRT: tl.constexpr, BLOCK_SIZE: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr,
    DIM_PAD: tl.constexpr, PRECISION: tl.constexpr,
    PACK: tl.constexpr = 0, K_CHUNK: tl.constexpr = 0, V_DIM: tl.constexpr = 1, V_SIZE: tl.constexpr = 0,
    V_PAD: tl.constexpr = 0,
):
    """One step of the online softmax over keys [first, first + KEYS), those from `end` on left out.

    blocks: blocks_of these keys; BLOCK_SIZE 0: unused, the keys are one run of tokens. PACK > 0: elements of a
    key lie in runs of PACK, K_CHUNK apart; V_DIM apart are those of a value. V_SIZE (padded: V_PAD): elements of a
    value, 0 = DIM.
    """
    VALUES: tl.constexpr = V_SIZE if V_SIZE > 0 else DIM
    VALUES_PAD: tl.constexpr = V_PAD if V_SIZE > 0 else DIM_PAD
    keys = first + tl.arange(0, KEYS)
    dim, v_dim = tl.arange(0, DIM_PAD), tl.arange(0, VALUES_PAD)
    k_dim = dim // PACK * K_CHUNK + dim % PACK if PACK > 0 else dim
    if BLOCK_SIZE == 0:
        k_key, v_key = keys.to(tl.int64) * k_place, keys.to(tl.int64) * v_place
    else:
        block, place = blocks.to(tl.int64), keys % BLOCK_SIZE
        k_key, v_key = block * k_block + place * k_place, block * v_block + place * v_place
    k_at = k + k_key[None, :] + k_dim[:, None]
    v_at = v + v_key[:, None] + (v_dim * V_DIM)[None, :]
    if MASKED or DIM != DIM_PAD or VALUES != VALUES_PAD:
        k_tile = tl.load(k_at, (dim < DIM)[:, None] & (keys < end)[None, :], other=0.0)
        v_tile = tl.load(v_at, (v_dim < VALUES)[None, :] & (keys < end)[:, None], other=0.0)
    else:
        k_tile = tl.load(k_at)
        v_tile = tl.load(v_at)
    scores = tl.dot(query, k_tile.to(query.dtype), input_precision=PRECISION) * scale
    distance = query_pos[:, None] - keys[None, :]
    if SOFTCAP:
        scores = softcap * tanh(scores / softcap)
    if ALIBI:
        if ALIBI_SQRT:
            scores -= alibi[:, None] * tl.sqrt(tl.maximum(distance, 0).to(tl.float32))
        else:
            scores -= alibi[:, None] * distance.to(tl.float32)
    scores *= LN2_INVERSE
    if MASKED:
        seen = (keys < end)[None, :] & (query_pos >= -1)[:, None]
        if CAUSAL:
            seen &= distance >= 0
        if LEFT >= 0:
            seen &= distance <= LEFT
        if RIGHT >= 0:
            seen &= -distance <= RIGHT
        scores = tl.where(seen, scores, float('-inf'))
    new_top = tl.maximum(top, tl.max(scores, 1))
    shift = new_top
    if MASKED:
        shift = tl.where(new_top == float('-inf'), 0.0, new_top)  # a row that has seen nothing yet
    weights = tl.exp2(scores - shift[:, None])
    shrink = tl.exp2(top - shift)
    total = total * shrink + tl.sum(weights, 1)
    acc = acc * shrink[:, None]
    acc = tl.dot(weights.to(query.dtype), v_tile.to(query.dtype), acc, input_precision=PRECISION)
    return acc, new_top, total


@triton.jit
def add_sink(acc, top, total, sinks, head, mask):
    sink = tl.load(sinks + head, mask, other=0.0).to(tl.float32) * LN2_INVERSE
    new_top = tl.maximum(top, sink)
    shrink = tl.exp2(top - new_top)
    return acc * shrink[:, None], new_top, total * shrink + tl.exp2(sink - new_top)


@triton.jit
def finish(acc, total, out, at, mask, factor, output_scale, OUTPUT_SCALE: tl.constexpr, LIMIT: tl.constexpr):
    """out[at] = acc / total * factor, zero where nothing was seen."""
    result = acc * (factor / tl.where(total == 0.0, 1.0, total))[:, None]
    if OUTPUT_SCALE:
        result = tl.clamp(result / tl.load(output_scale), -LIMIT, LIMIT)
    tl.store(out + at, result.to(out.dtype.element_ty), mask)


@triton.jit
def own_share(count, splits, even, KEYS: tl.constexpr):
    """Keys of a split of `count`: one of `even` parts, less where that is long and `splits` allow it."""
    share = tl.maximum(tl.cdiv(count, splits), tl.minimum(tl.cdiv(count, even), LONG_SHARE))
    return tl.maximum(tl.cdiv(share, KEYS) * KEYS, MIN_SHARE)


@triton.jit
def ranges_of(
    sequence, length, shared, prefix_splits, splits, even, LEFT: tl.constexpr, SHARES: tl.constexpr,
    KEYS: tl.constexpr, PREFIX_KEYS: tl.constexpr,
):
    """A sequence's first key of its own, the splits its own keys take, those of its shared prefix."""
    oldest, prefix = length * 0, length * 0
    if LEFT >= 0:
        oldest = tl.maximum(length - 1 - LEFT, 0) // KEYS * KEYS
    if SHARES:
        common = tl.load(shared + 2)
        sharing = (sequence >= tl.load(shared)) & (sequence < tl.load(shared + 1)) & (common > 0)
        oldest = tl.where(sharing, common, oldest)
        prefix = tl.where(sharing, tl.cdiv(common, own_share(common, prefix_splits, prefix_splits, PREFIX_KEYS)), 0)
    own = tl.maximum(tl.cdiv(length - oldest, own_share(length - oldest, splits, even, KEYS)), 1)
    return oldest, own, prefix


@triton.jit
def keep_part(acc, top, total, part_acc, part_top, part_total, part, mask, dim, DIM_PAD: tl.constexpr):
    tl.store(part_acc + part[:, None] * DIM_PAD + dim[None, :], acc, mask[:, None])
    tl.store(part_top + part, top, mask)
    tl.store(part_total + part, total, mask)


@triton.jit(do_not_specialize=['prefix_splits', 'splits', 'even'])
def split_kernel(
    q, k, v, out, part_acc, part_top, part_total, starts, lengths, table, shared, slopes, sinks, k_descale, v_descale,
    output_scale, scale, softcap, prefix_splits, splits, even,
    q_token, q_head, out_token, out_head, k_block, k_place, k_head, v_block, v_place, v_head,
    table_row, k_descale_row, k_descale_head, v_descale_row, v_descale_head,
    GROUP: tl.constexpr, LEFT: tl.constexpr, SOFTCAP: tl.constexpr, ALIBI: tl.constexpr, ALIBI_SQRT: tl.constexpr,
    SINKS: tl.constexpr, K_DESCALE: tl.constexpr, V_DESCALE: tl.constexpr, OUTPUT_SCALE: tl.constexpr,
    LIMIT: tl.constexpr, BLOCK_SIZE: tl.constexpr, SHARES: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, PREFIX_KEYS: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr,
    PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (key head, sequence, split); sequences whose query is not one token are left to tile_kernel.

    The block numbers of a tile are loaded a step ahead: addresses that wait for no load let the loads of several
    tiles be on their way.
    """
    kv_head, sequence, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    # written long before the previous kernel
    token, after, length = tl.load(starts + sequence), tl.load(starts + sequence + 1), tl.load(lengths + sequence)
    oldest, own, prefix = ranges_of(
        sequence, length, shared, prefix_splits, splits, even, LEFT, SHARES, KEYS, PREFIX_KEYS
    )
    share = own_share(length - oldest, splits, even, KEYS)
    low = oldest + split * share
    high = tl.minimum(low + share, length)
    row_table = table + sequence.to(tl.int64) * table_row
    coming = blocks_of(row_table, low, high, BLOCK_SIZE, KEYS)
    begin(EARLY)
    if (after - token != 1) | (split >= own):
        return
    token = token.to(tl.int64)
    row, dim = tl.arange(0, ROWS), tl.arange(0, DIM_PAD)
    head = kv_head * GROUP + row
    in_group = row < GROUP
    mask = in_group[:, None] & (dim < DIM)[None, :]
    query = tl.load(q + token * q_token + head[:, None] * q_head + dim[None, :], mask, other=0.0)
    query_pos = tl.zeros([ROWS], tl.int32) + length - 1
    alibi = tl.zeros([ROWS], tl.float32)
    if ALIBI:
        alibi = tl.load(slopes + head, in_group, other=0.0).to(tl.float32)
    factor = 1.0
    if K_DESCALE:
        scale *= tl.load(k_descale + sequence * k_descale_row + kv_head * k_descale_head)
    if V_DESCALE:
        factor = tl.load(v_descale + sequence * v_descale_row + kv_head * v_descale_head)
    acc = tl.zeros([ROWS, DIM_PAD], tl.float32)
    top = tl.full([ROWS], float('-inf'), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(low, high, KEYS):
        blocks = coming
        coming = blocks_of(row_table, first + KEYS, high, BLOCK_SIZE, KEYS)
        acc, top, total = attend_tile(  # a last position sees every key before it: only `LEFT` is left to check
            query, acc, top, total, k + kv_head * k_head, v + kv_head * v_head, blocks, alibi, first, high, query_pos,
            scale, softcap, k_block, k_place, v_block, v_place,
            True, False, LEFT, -1, SOFTCAP, ALIBI, ALIBI_SQRT, BLOCK_SIZE, KEYS, DIM, DIM_PAD, PRECISION,
        )
    if SINKS:
        if split == 0:
            acc, top, total = add_sink(acc, top, total, sinks, head, in_group)
    at = token * out_token + head[:, None] * out_head + dim[None, :]
    if own + prefix == 1:
        finish(acc, total, out, at, mask, factor, output_scale, OUTPUT_SCALE, LIMIT)
    else:
        heads = tl.num_programs(0) * GROUP
        part = (sequence * heads + head).to(tl.int64) * (prefix_splits + splits) + prefix_splits + split
        keep_part(acc, top, total, part_acc, part_top, part_total, part, in_group, dim, DIM_PAD)


@triton.jit(do_not_specialize=['prefix_splits', 'splits', 'even'])
def merge_splits_kernel(
    out, part_acc, part_top, part_total, starts, lengths, shared, v_descale, output_scale, prefix_splits, splits, even,
    out_token, out_head, v_descale_row, v_descale_head,
    GROUP: tl.constexpr, LEFT: tl.constexpr, V_DESCALE: tl.constexpr, OUTPUT_SCALE: tl.constexpr, LIMIT: tl.constexpr,
    SHARES: tl.constexpr, SLOTS: tl.constexpr, KEYS: tl.constexpr, PREFIX_KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_PAD: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (sequence, query head): add up the parts of prefix_kernel and split_kernel."""
    sequence, head = tl.program_id(0), tl.program_id(1)
    token, after, length = tl.load(starts + sequence), tl.load(starts + sequence + 1), tl.load(lengths + sequence)
    _, own, prefix = ranges_of(
        sequence, length, shared, prefix_splits, splits, even, LEFT, SHARES, KEYS, PREFIX_KEYS
    )
    begin(EARLY)
    if (after - token != 1) | (own + prefix == 1):  # nothing, or written by split_kernel
        return
    token = token.to(tl.int64)
    dim = tl.arange(0, DIM_PAD)
    row = (sequence * tl.num_programs(1) + head).to(tl.int64) * (prefix_splits + splits)
    result = tl.zeros([DIM_PAD], tl.float32)
    best, total = float('-inf'), 0.0
    for first in range(0, prefix + own, SLOTS):
        i = first + tl.arange(0, SLOTS)
        used = i < prefix + own
        part = row + tl.where(i < prefix, i, i - prefix + prefix_splits)
        top = tl.load(part_top + part, used, other=float('-inf'))
        acc = tl.load(part_acc + part[:, None] * DIM_PAD + dim[None, :], used[:, None], other=0.0)
        new_best = tl.maximum(best, tl.max(top, 0))
        weight, shrink = tl.exp2(top - new_best), tl.exp2(best - new_best)
        total = total * shrink + tl.sum(tl.load(part_total + part, used, other=0.0) * weight, 0)
        result = result * shrink + tl.sum(acc * weight[:, None], 0)
        best = new_best
    if V_DESCALE:
        result *= tl.load(v_descale + sequence * v_descale_row + (head // GROUP) * v_descale_head)
    result = result / total
    if OUTPUT_SCALE:
        result = tl.clamp(result / tl.load(output_scale), -LIMIT, LIMIT)
    tl.store(out + token * out_token + head * out_head + dim, result.to(out.dtype.element_ty), dim < DIM)


@triton.jit(do_not_specialize=['prefix_splits', 'splits'])
def prefix_kernel(
    q, k, v, part_acc, part_top, part_total, starts, lengths, table, shared, slopes, scale, softcap,
    prefix_splits, splits, q_token, q_head, k_block, k_place, k_head, v_block, v_place, v_head, table_row,
    GROUP: tl.constexpr, SOFTCAP: tl.constexpr, ALIBI: tl.constexpr, ALIBI_SQRT: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    DIM: tl.constexpr, DIM_PAD: tl.constexpr, PRECISION: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (run of sequences that share their first keys, key head, split): the keys are read once for the run."""
    TOKENS: tl.constexpr = ROWS // GROUP
    split, kv_head = tl.program_id(2), tl.program_id(1)
    first_sequence = tl.load(shared) + tl.program_id(0) * TOKENS
    last_sequence, common = tl.load(shared + 1), tl.load(shared + 2)
    begin(EARLY)
    share = own_share(common, prefix_splits, prefix_splits, KEYS)
    low = split * share
    if (first_sequence >= last_sequence) | (low >= common):
        return
    high = tl.minimum(low + share, common)
    row, dim = tl.arange(0, ROWS), tl.arange(0, DIM_PAD)
    sequence = first_sequence + row // GROUP
    head = kv_head * GROUP + row % GROUP
    valid = (row < TOKENS * GROUP) & (sequence < last_sequence)
    token = tl.load(starts + sequence, valid, other=0).to(tl.int64)
    query_pos = tl.load(lengths + sequence, valid, other=0) - 1
    mask = valid[:, None] & (dim < DIM)[None, :]
    query = tl.load(q + (token * q_token + head * q_head)[:, None] + dim[None, :], mask, other=0.0)
    alibi = tl.zeros([ROWS], tl.float32)
    if ALIBI:
        alibi = tl.load(slopes + head, valid, other=0.0).to(tl.float32)
    acc = tl.zeros([ROWS, DIM_PAD], tl.float32)
    top = tl.full([ROWS], float('-inf'), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    row_table = table + first_sequence.to(tl.int64) * table_row
    whole = low + (high - low) // KEYS * KEYS
    for first in range(low, whole, KEYS):
        acc, top, total = attend_tile(
            query, acc, top, total, k + kv_head * k_head, v + kv_head * v_head,
            blocks_of(row_table, first, high, BLOCK_SIZE, KEYS), alibi, first, high, query_pos, scale, softcap,
            k_block, k_place, v_block, v_place,
            False, False, -1, -1, SOFTCAP, ALIBI, ALIBI_SQRT, BLOCK_SIZE, KEYS, DIM, DIM_PAD, PRECISION,
        )
    if whole < high:
        acc, top, total = attend_tile(
            query, acc, top, total, k + kv_head * k_head, v + kv_head * v_head,
            blocks_of(row_table, whole, high, BLOCK_SIZE, KEYS), alibi, whole, high, query_pos, scale, softcap,
            k_block, k_place, v_block, v_place,
            True, False, -1, -1, SOFTCAP, ALIBI, ALIBI_SQRT, BLOCK_SIZE, KEYS, DIM, DIM_PAD, PRECISION,
        )
    heads = tl.num_programs(1) * GROUP
    part = (sequence * heads + head).to(tl.int64) * (prefix_splits + splits) + split
    keep_part(acc, top, total, part_acc, part_top, part_total, part, valid, dim, DIM_PAD)


@triton.jit
def sequence_of(starts, sequences, tile, TOKENS: tl.constexpr):
    """The sequence that the tile belongs to: the last whose first tile, starts[s] // TOKENS + s, is not after it."""
    found = 0
    for first in range(0, sequences, 256):
        s = first + tl.arange(0, 256)
        start = tl.load(starts + s, s < sequences, other=0)
        found += tl.sum(((start // TOKENS + s <= tile) & (s < sequences)).to(tl.int32), 0)
    return found - 1


@triton.jit(do_not_specialize=['sequences'])
def tile_kernel(
    q, k, v, out, starts, lengths, table, slopes, sinks, k_descale, v_descale, output_scale, scale, softcap, sequences,
    q_token, q_head, out_token, out_head, k_block, k_place, k_head, v_block, v_place, v_head,
    table_row, k_descale_row, k_descale_head, v_descale_row, v_descale_head,
    GROUP: tl.constexpr, CAUSAL: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, SOFTCAP: tl.constexpr,
    ALIBI: tl.constexpr, ALIBI_SQRT: tl.constexpr, SINKS: tl.constexpr, K_DESCALE: tl.constexpr,
    V_DESCALE: tl.constexpr,
    OUTPUT_SCALE: tl.constexpr, LIMIT: tl.constexpr, BLOCK_SIZE: tl.constexpr, SKIP_SINGLE: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, DIM: tl.constexpr, DIM_PAD: tl.constexpr, PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
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
    row, dim = tl.arange(0, ROWS), tl.arange(0, DIM_PAD)
    position = offset + row // GROUP
    head = kv_head * GROUP + row % GROUP
    valid = (row < TOKENS * GROUP) & (position < count)
    mask = valid[:, None] & (dim < DIM)[None, :]
    token = (start + position).to(tl.int64)
    query = tl.load(q + (token * q_token + head * q_head)[:, None] + dim[None, :], mask, other=0.0)
    before = length - count
    query_pos = before + position
    alibi = tl.zeros([ROWS], tl.float32)
    if ALIBI:
        alibi = tl.load(slopes + head, valid, other=0.0).to(tl.float32)
    factor = 1.0
    if K_DESCALE:
        scale *= tl.load(k_descale + sequence * k_descale_row + kv_head * k_descale_head)
    if V_DESCALE:
        factor = tl.load(v_descale + sequence * v_descale_row + kv_head * v_descale_head)
    acc = tl.zeros([ROWS, DIM_PAD], tl.float32)
    top = tl.full([ROWS], float('-inf'), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    row_table = table + sequence.to(tl.int64) * table_row
    last = before + tl.minimum(offset + TOKENS, count)  # one past the tile's last token
    low = 0
    if LEFT >= 0:
        low = tl.maximum(before + offset - LEFT, 0) // KEYS * KEYS
    high = length
    if CAUSAL:
        high = tl.minimum(high, last)
    elif RIGHT >= 0:
        high = tl.minimum(high, last + RIGHT)
    whole = low  # up to here every row sees every key
    high = tl.maximum(high, low)  # of a sequence that has no keys
    if LEFT < 0:
        if CAUSAL:
            whole = tl.minimum(before + offset + 1, high) // KEYS * KEYS
        elif RIGHT >= 0:
            whole = tl.minimum(before + offset + 1 + RIGHT, high) // KEYS * KEYS
        else:
            whole = high // KEYS * KEYS
        whole = tl.maximum(whole, low)
    for first in range(low, whole, KEYS):
        acc, top, total = attend_tile(
            query, acc, top, total, k + kv_head * k_head, v + kv_head * v_head,
            blocks_of(row_table, first, high, BLOCK_SIZE, KEYS), alibi, first, high, query_pos, scale, softcap,
            k_block, k_place, v_block, v_place,
            False, CAUSAL, LEFT, RIGHT, SOFTCAP, ALIBI, ALIBI_SQRT, BLOCK_SIZE, KEYS, DIM, DIM_PAD, PRECISION,
        )
    for first in range(whole, high, KEYS):
        acc, top, total = attend_tile(
            query, acc, top, total, k + kv_head * k_head, v + kv_head * v_head,
            blocks_of(row_table, first, high, BLOCK_SIZE, KEYS), alibi, first, high, query_pos, scale, softcap,
            k_block, k_place, v_block, v_place,
            True, CAUSAL, LEFT, RIGHT, SOFTCAP, ALIBI, ALIBI_SQRT, BLOCK_SIZE, KEYS, DIM, DIM_PAD, PRECISION,
        )
    if SINKS:
        acc, top, total = add_sink(acc, top, total, sinks, head, valid)
    at = (token * out_token + head * out_head)[:, None] + dim[None, :]
    finish(acc, total, out, at, mask, factor, output_scale, OUTPUT_SCALE, LIMIT)


def single_tiles(group: int, dim: int, itemsize: int, cached: int) -> Tiles:
    """Launch sizes of split_kernel; `cached`: bytes of an element of the cache.

    With heads of 128, two tiles of keys and values, three of one byte an element, are on their way while one is worked
    on, and three programs have room on a multiprocessor.
    """
    rows = max(16, next_power_of_2(group))
    if itemsize == 4 or dim > 128:
        return Tiles(rows, 32, 4, 2)
    return Tiles(rows, 64, 4, 3 if cached > 1 else 4)


def prompt_tiles(group: int, dim: int, itemsize: int, longest: int, room: int) -> Tiles:
    """Launch sizes of tile_kernel for queries of up to `longest` tokens, within `room` bytes of shared memory."""
    least = max(16, next_power_of_2(group))
    if itemsize == 4:
        return Tiles(max(32, least), 32, 4, 1)
    if dim <= 64:
        return Tiles(max(64, least), 64, 4, 2)
    if dim <= 128:
        if room < 180_000:
            return Tiles(max(64, least), 64, 4, 2)
        return Tiles(max(128, least), 32, 4, 3) if longest <= 512 else Tiles(max(128, least), 128, 8, 2)
    return Tiles(max(64, least), 32, 8, 2)


def prefix_tiles(group: int, dim: int, itemsize: int) -> Tiles:
    """Launch sizes of prefix_kernel."""
    rows = max(32 if itemsize == 4 else 64, next_power_of_2(group))
    return Tiles(rows, 32, 4, 1) if itemsize == 4 or dim > 128 else Tiles(rows, 64, 4, 5)


def prefix_split_count(programs: int, device: torch.device) -> int:
    """Splits of a shared prefix that fill the device nearly twice, the nearest power of two."""
    return min(1 << max(0, round(log2(1.75 * multiprocessors(device) / programs))), 8)


def split_count(sequences: int, kv_heads: int, longest: int, device: torch.device) -> int:
    """Key splits that fill the device about eight times over, the nearest power of two.

    It depends on shapes alone, so that one captured launch fits all lengths; a short sequence uses fewer, of
    MIN_SHARE keys.
    """
    wanted = 8 * multiprocessors(device) / (sequences * kv_heads)
    return min(1 << max(0, round(log2(wanted))), next_power_of_2(-(-longest // MIN_SHARE.value)), MAX_SPLITS)


def split_counts(sequences: int, kv_heads: int, dim: int, longest: int, device: torch.device) -> tuple[int, int]:
    """Key splits at most, which `longest` may lower, and those of a sequence that is not long, which it does not.

    Two programs a multiprocessor (four where a head is small) are as fast as more, and leave less to add up: only a
    sequence with more than LONG_SHARE keys a program takes the others, or a batch would wait for its longest.
    """
    most = split_count(sequences, kv_heads, longest, device)
    wanted = (2 if dim > 64 else 4) * multiprocessors(device) / (sequences * kv_heads)
    even = 1 << max(0, round(log2(wanted)))
    return min(most, max(even, next_power_of_2(-(-longest // LONG_SHARE.value)))), even


def unified_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, cu_seqlens_q: torch.Tensor, max_seqlen_q: int,
    seqused_k: torch.Tensor, max_seqlen_k: int, softmax_scale: float, causal: bool, window_size: tuple[int, int],
    block_table: torch.Tensor, softcap: float, k_descale: torch.Tensor | None, v_descale: torch.Tensor | None,
    num_par_softmax_segments: int | None, softmax_segm_output: torch.Tensor | None,
    softmax_segm_max: torch.Tensor | None, softmax_segm_expsum: torch.Tensor | None,
    alibi_slopes: torch.Tensor | None, output_scale: torch.Tensor | None, sinks: torch.Tensor | None,
    use_alibi_sqrt: bool, shared_prefix: torch.Tensor | None = None, tiles: tuple[Tiles, Tiles] | None = None,
) -> None:
    sequences, heads, dim = seqused_k.shape[0], q.shape[1], q.shape[2]
    block_size, kv_heads = k.shape[1], k.shape[2]
    if q.shape[0] == 0 or sequences == 0:
        return
    for name, x in (('q', q), ('k', k), ('v', v), ('out', out)):
        if x.stride(-1) != 1:
            raise ValueError(f'{name}: head elements must be contiguous, got strides {x.stride()}')
    if k.dtype == torch.uint8:
        k, v = cache_view(k, torch.float8_e4m3fn), cache_view(v, torch.float8_e4m3fn)
    group = heads // kv_heads
    single, prompt = tiles or (
        single_tiles(group, dim, q.element_size(), k.element_size()),
        prompt_tiles(group, dim, q.element_size(), max_seqlen_q, shared_memory(q.device)),
    )
    k_scales, v_scales = per_head(k_descale, sequences, kv_heads), per_head(v_descale, sequences, kv_heads)
    shared = (
        q.stride(0), q.stride(1), out.stride(0), out.stride(1), *k.stride()[:3], *v.stride()[:3], block_table.stride(0),
        *strides(k_scales), *strides(v_scales),
    )
    options = {
        'GROUP': group, 'CAUSAL': causal, 'LEFT': window_size[0], 'RIGHT': window_size[1], 'SOFTCAP': softcap > 0,
        'ALIBI': alibi_slopes is not None, 'ALIBI_SQRT': use_alibi_sqrt, 'SINKS': sinks is not None,
        'K_DESCALE': k_scales is not None, 'V_DESCALE': v_scales is not None, 'OUTPUT_SCALE': output_scale is not None,
        'LIMIT': torch.finfo(out.dtype).max if output_scale is not None else 0.0, 'BLOCK_SIZE': block_size, 'DIM': dim,
        'DIM_PAD': max(16, next_power_of_2(dim)), 'PRECISION': 'ieee' if q.dtype == torch.float32 else 'tf32',
    }
    skip_single = sequences > 1
    if max_seqlen_q > 1:
        blocks = q.shape[0] // (prompt.rows // group) + sequences
        tile_kernel[(blocks, kv_heads)](
            q, k, v, out, cu_seqlens_q, seqused_k, block_table, alibi_slopes, sinks, k_scales, v_scales, output_scale,
            softmax_scale, softcap, sequences, *shared, **options, SKIP_SINGLE=skip_single, ROWS=prompt.rows,
            KEYS=prompt.keys, **early_launch(q), num_warps=prompt.warps, num_stages=prompt.stages,
        )
        if not skip_single:
            return
    splits, even = split_counts(sequences, kv_heads, dim, max_seqlen_k, q.device)
    if num_par_softmax_segments:
        splits = even = num_par_softmax_segments
    prefix, runs, wide = 0, 0, single
    shares = shared_prefix is not None and window_size == (-1, -1) and k_scales is None and v_scales is None
    if shares:
        wide = prefix_tiles(group, dim, q.element_size())
        runs = triton.cdiv(sequences, wide.rows // group)
        prefix = prefix_split_count(runs * kv_heads, q.device)
    slots = prefix + splits
    parts = softmax_segm_output, softmax_segm_max, softmax_segm_expsum
    if shares or any(x is None for x in parts):
        parts = scratch(sequences * heads * slots if slots > 1 else 1, options['DIM_PAD'], q.device)
    if shares:
        scoring = ('GROUP', 'SOFTCAP', 'ALIBI', 'ALIBI_SQRT', 'BLOCK_SIZE', 'DIM', 'DIM_PAD', 'PRECISION')
        prefix_kernel[(runs, kv_heads, prefix)](
            q, k, v, *parts, cu_seqlens_q, seqused_k, block_table, shared_prefix, alibi_slopes, softmax_scale, softcap,
            prefix, splits, q.stride(0), q.stride(1), *k.stride()[:3], *v.stride()[:3], block_table.stride(0),
            **{name: options[name] for name in scoring}, ROWS=wide.rows, KEYS=wide.keys, **early_launch(q),
            num_warps=wide.warps, num_stages=wide.stages,
        )
    one = {name: x for name, x in options.items() if name not in ('CAUSAL', 'RIGHT')}
    kept = ('GROUP', 'LEFT', 'V_DESCALE', 'OUTPUT_SCALE', 'LIMIT', 'DIM', 'DIM_PAD')
    sizes = {'SHARES': shares, 'KEYS': single.keys, 'PREFIX_KEYS': wide.keys}
    split_kernel[(kv_heads, sequences, splits)](
        q, k, v, out, *parts, cu_seqlens_q, seqused_k, block_table, shared_prefix if shares else None, alibi_slopes,
        sinks, k_scales, v_scales, output_scale, softmax_scale, softcap, prefix, splits, even, *shared, **one, **sizes,
        ROWS=single.rows, **early_launch(q), num_warps=single.warps, num_stages=single.stages,
    )
    if slots > 1:
        few = prefix + even <= 8  # whatever the lengths: a captured launch has the same order of sums
        merge_splits_kernel[(sequences, heads)](
            out, *parts, cu_seqlens_q, seqused_k, shared_prefix if shares else None, v_scales, output_scale, prefix,
            splits, even, out.stride(0), out.stride(1), *strides(v_scales), **{name: options[name] for name in kept},
            **sizes, SLOTS=8 if few else 32, **early_launch(q), num_warps=2 if few else 4,
        )


def scratch(parts: int, dim: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Buffers for partial results: accumulators, maxima, sums."""
    parts = -(-parts // 4) * 4  # addresses on 16 bytes, whatever the batch: others compile anew
    buffer = torch.empty(parts * (dim + 2), dtype=torch.float32, device=device)
    return buffer[: parts * dim], buffer[parts * dim : parts * (dim + 1)], buffer[parts * (dim + 1) :]


def per_head(scale: torch.Tensor | None, sequences: int, kv_heads: int) -> torch.Tensor | None:
    return None if scale is None else scale.expand(sequences, kv_heads)


def strides(scale: torch.Tensor | None) -> tuple[int, int]:
    return (0, 0) if scale is None else (scale.stride(0), scale.stride(1))


@triton.jit
def merge_states_kernel(
    output, output_lse, prefix, prefix_lse, suffix, suffix_lse, output_scale, with_context,
    output_token, output_head, prefix_token, prefix_head, suffix_token, suffix_head,
    output_lse_head, prefix_lse_head, suffix_lse_head,
    OUTPUT_SCALE: tl.constexpr, LIMIT: tl.constexpr, WRITE_LSE: tl.constexpr, DIM: tl.constexpr,
    DIM_PAD: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    dim = tl.arange(0, DIM_PAD)
    mask = dim < DIM
    a = tl.load(prefix_lse + head * prefix_lse_head + token)
    b = tl.load(suffix_lse + head * suffix_lse_head + token)
    a = tl.where((a == float('inf')) | (token >= with_context), float('-inf'), a)
    b = tl.where(b == float('inf'), float('-inf'), b)
    top = tl.maximum(a, b)
    shift = tl.where(top == float('-inf'), 0.0, top)
    a_weight, b_weight = tl.exp(a - shift), tl.exp(b - shift)
    total = a_weight + b_weight
    some = tl.where(total == 0.0, 1.0, total)
    # an empty range may hold anything, NaN included: it is not read
    a_weight += tl.zeros([DIM_PAD], tl.float32)
    b_weight += tl.zeros([DIM_PAD], tl.float32)
    x = tl.load(prefix + token * prefix_token + head * prefix_head + dim, mask & (a_weight > 0), other=0.0)
    y = tl.load(suffix + token * suffix_token + head * suffix_head + dim, mask & (b_weight > 0), other=0.0)
    result = x.to(tl.float32) * (a_weight / some) + y.to(tl.float32) * (b_weight / some)
    if OUTPUT_SCALE:
        result = tl.clamp(result / tl.load(output_scale), -LIMIT, LIMIT)
    tl.store(output + token * output_token + head * output_head + dim, result.to(output.dtype.element_ty), mask)
    if WRITE_LSE:
        tl.store(output_lse + head * output_lse_head + token, top + tl.log(total))


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
    tokens, heads, dim = output.shape
    if tokens == 0:
        return
    merge_states_kernel[(tokens, heads)](
        output, output_lse, prefix_output, prefix_lse, suffix_output, suffix_lse, output_scale,
        tokens if prefill_tokens_with_context is None else prefill_tokens_with_context,
        *output.stride()[:2], *prefix_output.stride()[:2], *suffix_output.stride()[:2],
        0 if output_lse is None else output_lse.stride(0), prefix_lse.stride(0), suffix_lse.stride(0),
        OUTPUT_SCALE=output_scale is not None, LIMIT=torch.finfo(output.dtype).max if output_scale is not None else 0.0,
        WRITE_LSE=output_lse is not None, DIM=dim, DIM_PAD=next_power_of_2(dim), **early_launch(output), num_warps=1,
    )
