"""Rotary position embedding of a training batch in Triton: a program a token turns all its heads."""

import torch
import triton
import triton.language as tl

from swiftlite_kernels.triton import begin, early_launch, next_power_of_2


@triton.jit
def turned(
    out, x, heads, out_head, x_head, cos, sin, half, HEADS: tl.constexpr, HALF: tl.constexpr
):
    """Rotate [heads, 2 * half] at x and write it at out."""
    head = tl.arange(0, HEADS)[:, None]
    pair = tl.arange(0, HALF)[None, :]
    mask = (head < heads) & (pair < half)
    a = tl.load(x + head * x_head + pair, mask, other=0.0).to(tl.float32)
    b = tl.load(x + head * x_head + pair + half, mask, other=0.0).to(tl.float32)
    tl.store(out + head * out_head + pair, (a * cos - b * sin).to(out.dtype.element_ty), mask)
    tl.store(out + head * out_head + pair + half, (b * cos + a * sin).to(out.dtype.element_ty), mask)


@triton.jit(do_not_specialize=['length'])
def rope_kernel(
    query_out, key_out, query, key, cos, sin, length, half, heads, kv_heads,
    query_out_batch, query_out_token, query_out_head, key_out_batch, key_out_token, key_out_head,
    query_batch, query_token, query_head, key_batch, key_token, key_head, cos_batch, cos_token, sin_batch, sin_token,
    INVERSE: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, EARLY: tl.constexpr,
):
    begin(EARLY)
    batch, token = (tl.program_id(0) // length).to(tl.int64), (tl.program_id(0) % length).to(tl.int64)
    pair = tl.arange(0, HALF)
    c = tl.load(cos + batch * cos_batch + token * cos_token + pair, pair < half, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + batch * sin_batch + token * sin_token + pair, pair < half, other=0.0).to(tl.float32)[None, :]
    if INVERSE:
        s = -s
    turned(query_out + batch * query_out_batch + token * query_out_token,
           query + batch * query_batch + token * query_token, heads, query_out_head, query_head, c, s, half, HEADS,
           HALF)
    turned(key_out + batch * key_out_batch + token * key_out_token, key + batch * key_batch + token * key_token,
           kv_heads, key_out_head, key_head, c, s, half, KV_HEADS, HALF)


def rotate_query_key(
    query_out: torch.Tensor,
    key_out: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    inverse: bool = False,
) -> None:
    batch, length, heads, size = query.shape
    if batch * length == 0:
        return
    for x in (query_out, key_out, query, key, cos, sin):
        if x.stride(-1) != 1:
            raise ValueError(f'the last dimension must be contiguous, got strides {x.stride()}')
    angles = [y for x in (cos, sin) for y in (0 if x.shape[0] == 1 else x.stride(0), x.stride(1))]
    rope_kernel[(batch * length,)](
        query_out, key_out, query, key, cos, sin, length, size // 2, heads, key.shape[2],
        *query_out.stride()[:3], *key_out.stride()[:3], *query.stride()[:3], *key.stride()[:3], *angles,
        INVERSE=inverse, HALF=next_power_of_2(size // 2), HEADS=next_power_of_2(heads),
        KV_HEADS=next_power_of_2(key.shape[2]), **early_launch(query), num_warps=4,
    )
