"""Sampling in Triton without a sort.

scan_kernel reads each row once, in chunks: maximum, softmax mass and the winner of the noisy argmax of every chunk.
pick_kernel, a program a row, adds the chunks up; that is the answer unless a filter rejects it. Filters keep the ids
above a logit threshold, so a winner that is kept is the winner of the kept ids, whatever the threshold is:

- top_k up to MAX_K: the k-th largest maximum of GROUP neighbours bounds the k-th largest logit from below; the few
logits above the bound are collected and everything is settled among them, top_p included. So is min_p, whose bound is
known. - top_p alone: the winner is kept when the mass above its logit is under top_p; check_kernel sums that mass for
the winner and for the likeliest next one. Where both are out, ids up to their logit are dropped and the search goes
on, with the winners of the chunks that keep theirs.

Scores are in base 2: logit * log2(e) / temperature - log2(-log2(1 - u)), which orders ids as the natural logarithm
does.
"""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.sampling.reference import GREEDY_BELOW, ROUNDS
from swiftlite_kernels.triton import INTERPRETED, LOG2E, begin, divide, early_launch, fast_log2, next_power_of_2

CHUNK, GREEDY_CHUNK = 1024, 2048  # ids of a scan program
GROUP = 256  # neighbours whose maximum bounds the k-th largest logit
MAX_K = 256
ROOM = 1024  # candidates that fit in registers
STEP = 8192  # ids of a loop step over a whole row
CHECK_STEP = 2048  # ids of a loop step of check_kernel
PARTS = 16  # most programs of a row in check_kernel
CHECK_PROGRAMS = 1024  # of check_kernel, where rows allow: each looks through the chunks' winners first
SCAN_WARPS, CHECK_WARPS, PICK_WARPS = 1, 4, 8
COLD = tl.constexpr(GREEDY_BELOW)
PHILOX_ROUNDS = tl.constexpr(ROUNDS)
TO_BASE_2 = tl.constexpr(LOG2E)


@triton.jit
def wide_product(x, factor):
    """(low, high) word of a 32-bit product."""
    product = x.to(tl.uint64) * factor
    return product.to(tl.uint32), (product >> 32).to(tl.uint32)


@triton.jit
def philox(counter, position, seed):
    """Four uint32 words; see philox_uniform."""
    c0 = counter.to(tl.uint32)
    zero = c0 * 0
    c1 = zero + (position & 0xFFFFFFFF).to(tl.uint32)
    c2 = zero + ((position >> 32) & 0xFFFFFFFF).to(tl.uint32)
    c3 = zero
    k0, k1 = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    for _ in tl.static_range(PHILOX_ROUNDS):
        low_a, high_a = wide_product(c0, 0xD2511F53)
        low_b, high_b = wide_product(c2, 0xCD9E8D57)
        c0, c1 = high_b ^ c1 ^ k0, low_b
        c2, c3 = high_a ^ c3 ^ k1, low_a
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def uniform(word):
    return tl.minimum(word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10, 0.99999994)


@triton.jit
def gumbel(u):
    """-log2(-log2(1 - u)), the inner logarithm by its series where 1 - u would round u away."""
    small = u * (1.4426950409 + u * (0.7213475204 + u * (0.4808983470 + u * 0.3606737602)))
    return -fast_log2(tl.where(u < 0.03125, small, -fast_log2(1 - u)))


@triton.jit
def chunk_uniform(first, position, seed, SIZE: tl.constexpr):
    """Uniform numbers of ids first + [0, SIZE), as [SIZE / 4, 4]."""
    w0, w1, w2, w3 = philox(first // 4 + tl.arange(0, SIZE // 4), position, seed)
    column = tl.arange(0, 4)[None, :]
    low = tl.where(column == 0, w0[:, None], w1[:, None])
    high = tl.where(column == 2, w2[:, None], w3[:, None])
    return uniform(tl.where(column < 2, low, high))


@triton.jit
def ids_uniform(ids, position, seed):
    w0, w1, w2, w3 = philox(ids // 4, position, seed)
    lane = ids % 4
    return uniform(tl.where(lane < 2, tl.where(lane == 0, w0, w1), tl.where(lane == 2, w2, w3)))


@triton.jit
def winner(score, ids, vocab):
    """The lowest id with the largest score."""
    return tl.min(tl.where(score == tl.max(score), ids, vocab))


@triton.jit
def winner_from(bound, scores, ids, logits, vocab):
    """The best of the chunks' winners whose key reaches the bound."""
    return winner(tl.where(sortable(logits) >= bound, scores, float('-inf')), ids, vocab)


@triton.jit
def level_of(token, ids, logits):
    """Key of the logit of one of the chunks' winners."""
    return sortable(tl.max(tl.where(ids == token, logits, float('-inf'))))


@triton.jit
def sortable(x):
    """Unsigned integers in the order of the floats."""
    bits = (x + 0.0).to(tl.uint32, bitcast=True)
    return tl.where(bits >= 0x80000000, bits ^ 0xFFFFFFFF, bits | 0x80000000)


@triton.jit
def add3(a0, a1, a2, b0, b1, b2):
    return a0 + b0, a1 + b1, a2 + b2


@triton.jit
def sum3(one, two, three):
    """Three sums at the price of one."""
    if INTERPRETED:
        return tl.sum(one), tl.sum(two), tl.sum(three)
    else:
        return tl.reduce((one, two, three), 0, add3)


@triton.jit
def largest_reaching(keys, weights, least):
    """The largest key t with sum(weights[keys >= t]) >= least, two bits a step; 0 where the whole sum is below."""
    found = tl.full([], 0, tl.uint32)
    unit = tl.full([], 0x40000000, tl.uint32)
    while unit > 0:
        one = tl.where(keys >= found + unit, weights, 0)
        two = tl.where(keys >= found + unit * 2, weights, 0)
        three = tl.where(keys >= found + unit * 3, weights, 0)
        one, two, three = sum3(one, two, three)
        found += unit * ((one >= least).to(tl.uint32) + (two >= least).to(tl.uint32) + (three >= least).to(tl.uint32))
        unit >>= 2
    return found


@triton.jit
def uniform_kernel(out, seeds, positions, vocab, CHUNK: tl.constexpr, EARLY: tl.constexpr):
    begin(EARLY)
    row, first = tl.program_id(0).to(tl.int64), tl.program_id(1) * CHUNK
    u = chunk_uniform(first, tl.load(positions + row), tl.load(seeds + row), CHUNK)
    ids = first + tl.arange(0, CHUNK // 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    tl.store(out + row * vocab + ids, u, ids < vocab)


@triton.jit
def scan_kernel(
    logits, row_stride, vocab, temperature, seeds, positions,
    tops, masses, scores, winners, winner_logits, group_tops, chunks, groups,
    CHUNK: tl.constexpr, GROUP: tl.constexpr, DRAW: tl.constexpr, FILTER: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (row, chunk)."""
    begin(EARLY)
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    ids = chunk * CHUNK + tl.arange(0, CHUNK // 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
    x = tl.load(logits + row * row_stride + ids, ids < vocab, other=float('-inf')).to(tl.float32)
    cell = row * chunks + chunk
    score = x
    if DRAW:
        heat = tl.load(temperature + row)
        if heat >= COLD:
            inverse = divide(1.0, heat) * TO_BASE_2
            score = x * inverse + gumbel(
                chunk_uniform(chunk * CHUNK, tl.load(positions + row), tl.load(seeds + row), CHUNK)
            )
            if FILTER:
                top = tl.max(x)
                tl.store(tops + cell, top)
                shift = tl.where(top == float('-inf'), 0.0, top)
                tl.store(masses + cell, tl.sum(tl.exp2((x - shift) * inverse)))
                of_group = tl.max(tl.reshape(x, [CHUNK // GROUP, GROUP]), 1)
                at = chunk * (CHUNK // GROUP) + tl.arange(0, CHUNK // GROUP)
                tl.store(group_tops + row * groups + at, of_group)
    token = winner(score, ids, vocab)
    tl.store(scores + cell, tl.max(score))
    tl.store(winners + cell, token)
    if FILTER:
        tl.store(winner_logits + cell, tl.max(tl.where(ids == token, x, float('-inf'))))


@triton.jit(do_not_specialize=['parts'])
def check_kernel(
    logits, row_stride, vocab, temperature, top_k, top_p, min_p, tops, scores, winners, winner_logits, above, chunks,
    parts,
    CHUNKS: tl.constexpr, STEP: tl.constexpr, PARTS: tl.constexpr, TOP_K: tl.constexpr, MIN_P: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Program (row, part), for rows with top_p alone: mass above the winner and the next one, one step in `parts`."""
    begin(EARLY)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    heat = tl.load(temperature + row)
    wanted = (heat >= COLD) & (tl.load(top_p + row) < 1.0)
    if TOP_K:
        k = tl.load(top_k + row)
        wanted = wanted & ((k <= 0) | (k >= vocab))
    if MIN_P:
        wanted = wanted & (tl.load(min_p + row) <= 0.0)
    if wanted:
        chunk = tl.arange(0, CHUNKS)
        here = chunk < chunks
        cell = row * chunks + chunk
        score = tl.load(scores + cell, here, other=float('-inf'))
        ids = tl.load(winners + cell, here, other=vocab)
        won = tl.load(winner_logits + cell, here, other=float('-inf'))
        top = tl.max(tl.load(tops + cell, here, other=float('-inf')))
        first = level_of(winner(score, ids, vocab), ids, won)
        second = level_of(winner_from(first + 1, score, ids, won, vocab), ids, won)
        inverse = divide(1.0, heat) * TO_BASE_2
        mass, rest = tl.zeros([STEP], tl.float32), tl.zeros([STEP], tl.float32)
        for start in range(part * STEP, vocab, parts * STEP):
            at = start + tl.arange(0, STEP)
            x = tl.load(logits + row * row_stride + at, at < vocab, other=float('-inf')).to(tl.float32)
            weight = tl.where(at < vocab, tl.exp2((x - top) * inverse), 0.0)
            key = sortable(x)
            mass += tl.where(key > first, weight, 0.0)
            rest += tl.where(key > second, weight, 0.0)
        tl.store(above + (row * 2) * PARTS + part, tl.sum(mass))
        tl.store(above + (row * 2 + 1) * PARTS + part, tl.sum(rest))


@triton.jit
def row_mass(logits, vocab, inverse, top, bound, STEP: tl.constexpr):
    """Softmax mass, relative to the largest logit, of the row's ids whose key reaches the bound."""
    mass = tl.zeros([STEP], tl.float32)
    for first in range(0, vocab, STEP):
        ids = first + tl.arange(0, STEP)
        x = tl.load(logits + ids, ids < vocab, other=float('-inf')).to(tl.float32)
        mass += tl.where((sortable(x) >= bound) & (ids < vocab), tl.exp2((x - top) * inverse), 0.0)
    return tl.sum(mass)


@triton.jit
def row_kth(logits, vocab, k, STEP: tl.constexpr):
    """Key of the row's k-th largest logit, two bits a pass."""
    found = tl.full([], 0, tl.uint32)
    unit = tl.full([], 0x40000000, tl.uint32)
    while unit > 0:
        one, two, three = tl.zeros([STEP], tl.int32), tl.zeros([STEP], tl.int32), tl.zeros([STEP], tl.int32)
        for first in range(0, vocab, STEP):
            ids = first + tl.arange(0, STEP)
            x = tl.load(logits + ids, ids < vocab, other=float('-inf')).to(tl.float32)
            key = tl.where(ids < vocab, sortable(x), 0)
            one += (key >= found + unit).to(tl.int32)
            two += (key >= found + unit * 2).to(tl.int32)
            three += (key >= found + unit * 3).to(tl.int32)
        one, two, three = sum3(one, two, three)
        found += unit * ((one >= k).to(tl.uint32) + (two >= k).to(tl.uint32) + (three >= k).to(tl.uint32))
        unit >>= 2
    return found


@triton.jit
def collect(
    logits, vocab, of_group, group, bound, lists, values, tokens, GROUP: tl.constexpr, MAX_K: tl.constexpr,
    ROOM: tl.constexpr,
):
    """Gather the ids whose key reaches the bound; returns their number, > ROOM if there are too many."""
    chosen = of_group >= bound
    number, found = tl.sum(chosen.to(tl.int32)), ROOM + 1
    if number <= 2 * MAX_K:
        tl.store(lists + tl.cumsum(chosen.to(tl.int32), 0) - 1, group, chosen)
        tl.debug_barrier()
        found = 0
        for first in range(0, number, 8):
            slot = first + tl.arange(0, 8)
            which = tl.load(lists + slot, slot < number, other=0)
            ids = which[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
            live = (slot < number)[:, None] & (ids < vocab)
            x = tl.load(logits + ids, live, other=float('-inf')).to(tl.float32)
            live = live & (sortable(x) >= bound)
            x, ids, live = tl.reshape(x, [8 * GROUP]), tl.reshape(ids, [8 * GROUP]), tl.reshape(live, [8 * GROUP])
            at = found + tl.cumsum(live.to(tl.int32), 0) - 1
            tl.store(values + at, x, live & (at < ROOM))
            tl.store(tokens + at, ids, live & (at < ROOM))
            found += tl.sum(live.to(tl.int32))
        tl.debug_barrier()
    return found


@triton.jit
def pick_from_few(x, candidates, found, k, p, bound, inverse, top, position, seed, vocab, ROOM: tl.constexpr):
    """The token among collected candidates, which include all that k (0 = off) and the bound leave."""
    live = tl.arange(0, ROOM) < found
    key = tl.where(live, sortable(x), 0)
    if k > 0:
        bound = tl.maximum(bound, largest_reaching(key, live.to(tl.int32), k))
    if p < 1.0:
        mass = tl.where(key >= bound, tl.exp2((x - top) * inverse), 0.0)
        nucleus = largest_reaching(key, mass, p * tl.sum(mass))
        bound = tl.maximum(bound, tl.minimum(nucleus, sortable(top)))  # top_p = 0 keeps the largest logit
    noisy = x * inverse + gumbel(ids_uniform(candidates, position, seed))
    return winner(tl.where(live & (key >= bound), noisy, float('-inf')), candidates, vocab)


@triton.jit
def pick_from_row(
    logits, vocab, chunk, here, chunk_top, score, ids, won, p, wanted, bound, sure, inverse, top, position, seed,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr, STEP: tl.constexpr,
):
    """The token among all ids from bound on, by rejection.

    score, ids, won: the winner of each chunk and its logit. sure: the key of a logit known to be in the nucleus.
    """
    token = vocab
    searching = 1
    while searching > 0:
        # chunks whose winner is out but which still hold ids that may stay: find their next winner
        stale = here & (sortable(won) < bound) & (sortable(chunk_top) >= bound)
        worst = tl.min(tl.where(stale, chunk, CHUNKS))
        while worst < CHUNKS:
            at = worst * CHUNK + tl.arange(0, CHUNK // 4)[:, None] * 4 + tl.arange(0, 4)[None, :]
            x = tl.load(logits + at, at < vocab, other=float('-inf')).to(tl.float32)
            noisy = x * inverse + gumbel(chunk_uniform(worst * CHUNK, position, seed, CHUNK))
            noisy = tl.where((sortable(x) >= bound) & (at < vocab), noisy, float('-inf'))
            next_id = winner(noisy, at, vocab)
            score = tl.where(chunk == worst, tl.max(noisy), score)
            ids = tl.where(chunk == worst, next_id, ids)
            won = tl.where(chunk == worst, tl.max(tl.where(at == next_id, x, float('-inf'))), won)
            stale = stale & (chunk != worst)
            worst = tl.min(tl.where(stale, chunk, CHUNKS))
        token = winner_from(bound, score, ids, won, vocab)
        level = level_of(token, ids, won)
        searching = 0
        if (p < 1.0) & (level < sure):
            if row_mass(logits, vocab, inverse, top, level + 1, STEP) >= wanted:
                bound = level + 1
                searching = 1
    return token


@triton.jit(do_not_specialize=['parts'])
def pick_kernel(
    out, logits, row_stride, vocab, temperature, top_k, top_p, min_p, seeds, positions,
    tops, masses, scores, winners, winner_logits, group_tops, above, lists, values, tokens, chunks, groups, parts,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, ROOM: tl.constexpr,
    STEP: tl.constexpr, PARTS: tl.constexpr, MAX_K: tl.constexpr, FILTER: tl.constexpr, TOP_K: tl.constexpr,
    TOP_P: tl.constexpr, MIN_P: tl.constexpr, EARLY: tl.constexpr,
):
    """Program (row)."""
    begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.arange(0, CHUNKS)
    here = chunk < chunks
    cell = row * chunks + chunk
    score = tl.load(scores + cell, here, other=float('-inf'))
    ids = tl.load(winners + cell, here, other=vocab)
    token = winner(score, ids, vocab)
    if FILTER:
        heat = tl.load(temperature + row)
        k, p, low = 0, 1.0, 0.0
        if TOP_K:
            k = tl.load(top_k + row).to(tl.int32)
            k = tl.where((k <= 0) | (k >= vocab), 0, k)
        if TOP_P:
            p = tl.load(top_p + row)
        if MIN_P:
            low = tl.load(min_p + row)
        if (heat >= COLD) & ((k > 0) | (p < 1.0) | (low > 0.0)):
            inverse = divide(1.0, heat) * TO_BASE_2
            chunk_top = tl.load(tops + cell, here, other=float('-inf'))
            top = tl.max(chunk_top)
            won = tl.load(winner_logits + cell, here, other=float('-inf'))
            logits += row * row_stride
            position, seed = tl.load(positions + row), tl.load(seeds + row)
            bound = tl.full([], 0, tl.uint32)  # lowest key that stays
            searching = 1
            if (k > 0) | (low > 0.0):
                if low > 0.0:
                    bound = sortable(tl.minimum(top + tl.log(low) * heat, top))
                group = tl.arange(0, GROUPS)
                of_group = tl.load(group_tops + row * groups + group, group < groups, other=float('-inf'))
                of_group = tl.where(group < groups, sortable(of_group), 0)
                least = bound
                if (k > 0) & (k <= MAX_K):
                    least = tl.maximum(bound, largest_reaching(of_group, (group < groups).to(tl.int32), k))
                few = ROOM + 1
                if least > 0:
                    few = collect(
                        logits, vocab, of_group, group, least, lists + row * GROUPS, values + row * ROOM,
                        tokens + row * ROOM, GROUP, MAX_K, ROOM,
                    )
                # a bound from min_p alone may leave fewer than k: then k changes nothing
                if few <= ROOM:
                    slot = tl.arange(0, ROOM)
                    x = tl.load(values + row * ROOM + slot, slot < few, other=float('-inf'))
                    candidates = tl.load(tokens + row * ROOM + slot, slot < few, other=0)
                    token = pick_from_few(
                        x, candidates, few, tl.minimum(k, few), p, bound, inverse, top, position, seed, vocab, ROOM
                    )
                    searching = 0
                elif k > 0:
                    bound = tl.maximum(bound, row_kth(logits, vocab, k, STEP))
            wanted, sure = 0.0, sortable(top)
            if TOP_P:
                if (searching > 0) & (p < 1.0):
                    if bound > 0:
                        wanted = p * row_mass(logits, vocab, inverse, top, bound, STEP)
                    else:
                        share = tl.where(here, tl.exp2((chunk_top - top) * inverse), 0.0)
                        wanted = p * tl.sum(tl.load(masses + cell, here, other=0.0) * share)
                        part = tl.arange(0, PARTS)
                        mass = tl.sum(tl.load(above + (row * 2) * PARTS + part, part < parts, other=0.0))
                        rest = tl.sum(tl.load(above + (row * 2 + 1) * PARTS + part, part < parts, other=0.0))
                        first = level_of(token, ids, won)
                        second = level_of(winner_from(first + 1, score, ids, won, vocab), ids, won)
                        if (mass < wanted) | (first >= sure):
                            searching = 0  # the winner stays
                        elif rest < wanted:
                            bound, sure = first + 1, second
                        else:
                            bound = tl.maximum(first, tl.minimum(second, sure - 1)) + 1
            if searching > 0:
                token = pick_from_row(
                    logits, vocab, chunk, here, chunk_top, score, ids, won, p, wanted, bound, sure, inverse, top,
                    position, seed, CHUNK, CHUNKS, STEP,
                )
    tl.store(out + row, tl.minimum(token, vocab - 1).to(tl.int64))


@triton.jit
def penalty_kernel(
    logits, prompt_mask, output_mask, penalties, row_stride, prompt_stride, output_stride, vocab, BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    begin(EARLY)
    row = tl.program_id(0).to(tl.int64)
    penalty = tl.load(penalties + row).to(tl.float32)
    if penalty == 1.0:
        return
    ids = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = ids < vocab
    prompt = tl.load(prompt_mask + row * prompt_stride + ids, mask, other=0)
    output = tl.load(output_mask + row * output_stride + ids, mask, other=0)
    seen = mask & ((prompt != 0) | (output != 0))
    x = tl.load(logits + row * row_stride + ids, seen, other=0.0)
    wide = x.to(tl.float32)
    divisor = tl.zeros([BLOCK], tl.float32) + penalty
    changed = tl.where(wide > 0, divide(wide, divisor), wide * penalty)
    tl.store(logits + row * row_stride + ids, changed.to(x.dtype), seen)


def philox_uniform(seeds: torch.Tensor, positions: torch.Tensor, vocab: int) -> torch.Tensor:
    out = torch.empty(seeds.shape[0], vocab, dtype=torch.float32, device=seeds.device)
    if out.numel():
        uniform_kernel[(seeds.shape[0], triton.cdiv(vocab, CHUNK))](
            out, seeds, positions, vocab, CHUNK=CHUNK, **early_launch(seeds), num_warps=4
        )
    return out


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor | None,
    top_k: torch.Tensor | None,
    top_p: torch.Tensor | None,
    min_p: torch.Tensor | None,
    seeds: torch.Tensor | None,
    positions: torch.Tensor | None,
) -> torch.Tensor:
    rows, vocab = logits.shape
    device = logits.device
    out = torch.empty(rows, dtype=torch.int64, device=device)
    if rows == 0:
        return out
    draw = temperature is not None
    if draw and (seeds is None or positions is None):
        raise ValueError('sample needs seeds and positions when a temperature is given')
    filtered = draw and not (top_k is None and top_p is None and min_p is None)
    chunk = CHUNK if draw else GREEDY_CHUNK
    chunks, groups = triton.cdiv(vocab, chunk), triton.cdiv(vocab, chunk) * (chunk // GROUP)
    group_room = next_power_of_2(groups)
    cells = -(-rows * chunks // 4) * 4  # each on 16 bytes, whatever the batch: other addresses compile anew
    parts = torch.empty(4 if filtered else 1, cells, dtype=torch.float32, device=device)
    winners = torch.empty(rows, chunks, dtype=torch.int32, device=device)
    scores = parts[0]
    tops, masses, winner_logits = (parts[1], parts[2], parts[3]) if filtered else (None, None, None)
    group_tops = above = values = lists = tokens = None
    if filtered:
        group_tops = torch.empty(rows, groups, dtype=torch.float32, device=device)
        values = torch.empty(rows, ROOM, dtype=torch.float32, device=device)
        tokens = torch.empty(rows, ROOM, dtype=torch.int32, device=device)
        lists = torch.empty(rows, group_room, dtype=torch.int32, device=device)
    scan_kernel[(rows, chunks)](
        logits, logits.stride(0), vocab, temperature, seeds, positions, tops, masses, scores, winners, winner_logits,
        group_tops, chunks, groups, CHUNK=chunk, GROUP=GROUP, DRAW=draw, FILTER=filtered, **early_launch(logits),
        num_warps=SCAN_WARPS if draw else 4,
    )
    part_count = max(1, min(PARTS, CHECK_PROGRAMS // rows))
    if filtered and top_p is not None:
        above = torch.empty(rows, 2, PARTS, dtype=torch.float32, device=device)
        check_kernel[(rows, part_count)](
            logits, logits.stride(0), vocab, temperature, top_k, top_p, min_p, tops, scores, winners, winner_logits,
            above, chunks, part_count, CHUNKS=next_power_of_2(chunks), STEP=CHECK_STEP, PARTS=PARTS,
            TOP_K=top_k is not None, MIN_P=min_p is not None, **early_launch(logits), num_warps=CHECK_WARPS,
        )
    pick_kernel[(rows,)](
        out, logits, logits.stride(0), vocab, temperature, top_k, top_p, min_p, seeds, positions, tops, masses, scores,
        winners, winner_logits, group_tops, above, lists, values, tokens, chunks, groups, part_count,
        CHUNK=chunk, CHUNKS=next_power_of_2(chunks), GROUP=GROUP, GROUPS=group_room, ROOM=ROOM, STEP=STEP, PARTS=PARTS,
        MAX_K=MAX_K, FILTER=filtered, TOP_K=top_k is not None, TOP_P=top_p is not None, MIN_P=min_p is not None,
        **early_launch(logits), num_warps=PICK_WARPS if filtered else 2,
    )
    return out


def apply_repetition_penalties(
    logits: torch.Tensor, prompt_mask: torch.Tensor, output_mask: torch.Tensor, repetition_penalties: torch.Tensor
) -> None:
    rows, vocab = logits.shape
    if rows == 0:
        return
    penalty_kernel[(rows, triton.cdiv(vocab, CHUNK))](
        logits, prompt_mask.view(torch.uint8), output_mask.view(torch.uint8), repetition_penalties, logits.stride(0),
        prompt_mask.stride(0), output_mask.stride(0), vocab, BLOCK=CHUNK, **early_launch(logits), num_warps=4,
    )
