"""Caches of vLLM's earlier layouts: packed keys, pages of whole tokens, and prompts beside them."""

from contextlib import contextmanager
from importlib import import_module

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive
from tests.kernels.test_attention import make_batch


@contextmanager
def public(target, family):
    """The family's public module; its ops are the Triton ones in an interpreted run."""
    module = import_module(f'swiftlite_kernels.{family}')
    with pytest.MonkeyPatch.context() as patch:
        if target.name == 'interpreted':
            patch.setattr(module, 'backend', lambda name, x: target.ops(name))
        yield module


def packed(k, v):
    """Caches [blocks, block_size, heads, d] in the packed layout, blocks of keys and values apart by a gap."""
    x = 16 // k.element_size()
    keys = k.unflatten(-1, (-1, x)).permute(0, 2, 3, 1, 4)
    return torch.stack([keys, keys], 1)[:, 0], torch.stack([v.permute(0, 2, 3, 1)] * 2, 1)[:, 1]


def ints(values, device):
    return torch.tensor(values, dtype=torch.int32, device=device)


def decode_batch(target, lengths, heads, kv_heads, dim, block_size, dtype):
    lengths = [max(n, 1) for n in lengths]
    q, k, v, starts, _, table = make_batch(
        [1] * len(lengths), [n - 1 for n in lengths], heads, kv_heads, dim, block_size, dtype, target.device
    )
    return q[: len(lengths)], k, v, starts, table


@given(
    lengths=st.lists(st.sampled_from([0, 1, 16, 37, 150]), min_size=1, max_size=4),
    shape=st.sampled_from([(4, 4, 24), (6, 2, 80), (8, 1, 96), (2, 2, 112), (7, 1, 128)]),
    block_size=st.sampled_from([8, 16, 32]), alibi=st.booleans(), dtype=st.integers(0, 2), second=st.booleans(),
)
def test_packed_caches(target, lengths, shape, block_size, alibi, dtype, second):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    heads, kv_heads, dim = shape
    q, k, v, starts, table = decode_batch(target, lengths, heads, kv_heads, dim, block_size, dtype)
    keys, values = packed(k, v)
    slopes = torch.rand(heads, device=target.device) if alibi else None
    want = naive.paged_attention(q, k, v, starts, lengths, table, scale=0.2, slopes=slopes)
    wide = torch.full((len(lengths), heads + 1, dim), 7.0, device=target.device, dtype=dtype)
    out, one = wide[:, :heads], torch.ones(1, device=target.device)
    args = (q, keys, values, kv_heads, 0.2, table, ints(lengths, target.device), block_size, max(lengths), slopes)
    with public(target, 'paged_attention') as ops:
        if second:
            parts = torch.empty(2, len(lengths) + 1, heads, 3, device=target.device)
            rest = torch.empty(len(lengths) + 1, heads, 3, dim, dtype=dtype, device=target.device)
            ops.paged_attention_v2(out, parts[0], parts[1], rest, *args, 'auto', one, one)
        else:
            ops.paged_attention_v1(out, *args, 'auto', one, one)
    assert naive.error(out, want) < 2 * naive.TOLERANCE[dtype]
    assert (wide[:, heads] == 7).all()


def test_partitions_of_a_long_sequence(target):
    lengths, heads, dim = [1100, 512, 3], 2, 24
    q, k, v, starts, table = decode_batch(target, lengths, heads, 2, dim, 16, torch.float32)
    want = naive.paged_attention(q, k, v, starts, lengths, table, scale=0.2)
    sums, tops = torch.zeros(2, 3, heads, 3, device=target.device)
    rest, out, one = torch.zeros(3, heads, 3, dim, device=target.device), torch.zeros_like(q), None
    with public(target, 'paged_attention') as ops:
        ops.paged_attention_v2(
            out, sums, tops, rest, q, *packed(k, v), 2, 0.2, table, ints(lengths, target.device), 16, 1100, None,
            'auto', one, one,
        )  # fmt: skip
    assert naive.error(out, want) < 2 * naive.TOLERANCE[torch.float32]
    if target.name != 'reference':  # the buffers say what vLLM's say
        first = k[table[0, :32].long()].flatten(0, 1)[:, 0]  # the keys of the first partition, first head
        scores = (first @ q[0, 0]) * 0.2
        torch.testing.assert_close(tops[0, 0, 0], scores.max(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sums[0, 0, 0], (scores - scores.max()).exp().sum(), rtol=1e-4, atol=0)
        values = v[table[0, :32].long()].flatten(0, 1)[:, 0]
        torch.testing.assert_close(rest[0, 0, 0], scores.softmax(0) @ values, rtol=1e-4, atol=1e-5)


@given(
    lengths=st.lists(st.sampled_from([0, 1, 16, 37, 300]), min_size=1, max_size=3),
    shape=st.sampled_from([(4, 4, 24, 24), (6, 2, 80, 80), (4, 1, 96, 64), (2, 2, 128, 112)]),
    page=st.sampled_from([1, 16, 64]), cap=st.sampled_from([0.0, 5.0]), splits=st.sampled_from([1, 2, 8]),
    flat=st.booleans(), dtype=st.integers(0, 2),
)
def test_pages(target, lengths, shape, page, cap, splits, flat, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    heads, kv_heads, dim, size = shape
    q, k, v, starts, table = decode_batch(target, lengths, heads, kv_heads, dim, page, dtype)
    want = naive.paged_attention(q, k, v, starts, lengths, table, scale=0.3, softcap=cap)[..., :size]
    k, v = (x.contiguous().flatten(0, 1) for x in (k, v)) if flat else (k, v)
    out = torch.full((len(lengths), heads, size), 7.0, device=target.device, dtype=dtype)
    lse = torch.zeros(len(lengths), heads, device=target.device)
    scratch = torch.empty(len(lengths), heads, splits, size + 1, device=target.device)
    with public(target, 'paged_attention') as ops:
        ops.decode_attention_fwd(
            q, k, v[..., :size], out, lse, table, ints(lengths, target.device), scratch, splits, 0.3, page, cap
        )
    assert naive.error(out, want) < 2 * naive.TOLERANCE[dtype]
    for i, length in enumerate(lengths):
        if length == 0:
            assert (lse[i] == -torch.inf).all()
            continue
        where = [int(table[i, p // page]) * page + p % page for p in range(length)]
        keys = (k if flat else k.flatten(0, 1))[where].double().repeat_interleave(heads // kv_heads, 1)
        scores = torch.einsum('hd,nhd->hn', q[i].double(), keys) * 0.3
        scores = cap * torch.tanh(scores / cap) if cap else scores
        torch.testing.assert_close(lse[i].double(), scores.logsumexp(-1), rtol=5e-3, atol=5e-3)


BATCHES = {
    'prompts': ([3, 17, 40], [0, 0, 0]),
    'chunks': ([5, 1, 20], [30, 0, 7]),
    'mixed': ([1, 33, 1, 2], [70, 0, 12, 40]),
    'one row': ([1], [50]),
    'empty ones': ([1, 0, 4], [19, 0, 3]),
}


@pytest.mark.parametrize('batch', BATCHES)
@pytest.mark.parametrize('kind', ['plain', 'window', 'alibi', 'sinks', 'fp8 out', 'skip'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_new_tokens_over_a_packed_cache(target, batch, kind, dtype):
    if target.name == 'interpreted' and (kind == 'fp8 out' or (dtype == torch.float16 and batch != 'chunks')):
        pytest.skip('the interpreter has no fp8 conversion, and is slow')
    queries, befores = BATCHES[batch]
    heads, kv_heads, dim = (6, 2, 80) if batch == 'mixed' else (4, 4, 24)
    q, k, v, starts, lengths, table = make_batch(queries, befores, heads, kv_heads, dim, 16, dtype, target.device)
    slopes = torch.rand(heads, device=target.device) if kind == 'alibi' else None
    sinks = torch.randn(heads, device=target.device) if kind == 'sinks' else None
    window = 9 if kind == 'window' else None
    want = naive.paged_attention(
        q, k, v, starts, lengths, table, scale=dim**-0.5, window=((window or 0) - 1, -1), slopes=slopes, sinks=sinks
    )
    keys, values = k.clone(), v.clone()
    new_k, new_v = torch.full((2, q.shape[0], kv_heads, dim), float('nan'), dtype=dtype, device=target.device)
    for i, (n, before) in enumerate(zip(queries, befores, strict=True)):
        for j in range(n):  # the new tokens are not in the cache
            at = int(table[i, (before + j) // 16]), (before + j) % 16
            new_k[starts[i] + j], new_v[starts[i] + j] = keys[at], values[at]
            keys[at], values[at] = float('nan'), float('nan')
    scale = torch.tensor([0.5], device=target.device) if kind == 'fp8 out' else None
    out = torch.full_like(q, 7).to(torch.float8_e4m3fn if scale is not None else dtype)
    one = torch.ones(1, device=target.device)
    with public(target, 'prefix_prefill') as ops:
        ops.context_attention_fwd(
            q, new_k, new_v, out, 'auto', *packed(keys, values), table, ints(starts, target.device),
            ints(lengths, target.device), max(lengths), max(queries), one, one, slopes, window, None, kind == 'skip',
            scale, sinks,
        )  # fmt: skip
    got, used = out.float() * (1 if scale is None else scale), starts[-1]
    assert (out[used:].float() == 7).all()
    if kind == 'skip':
        rows = [starts[i] for i, n in enumerate(queries) if n == 1]
        assert (out[rows].float() == 7).all()
        got[rows], want[rows] = 0, 0
        if max(queries) == 1:
            return
    assert naive.error(got[:used], want[:used]) < (0.05 if scale is not None else 2 * naive.TOLERANCE[dtype])


@pytest.mark.parametrize(
    ('kind', 'ends'),
    [('causal', True), ('both ways', False), ('window', False), ('window ahead', False), ('causal window', True)],
)
def test_sequences_alone(target, kind, ends):
    lengths, heads, kv_heads, dim = [21, 1, 50, 3], 6, 2, 80
    starts = [0, 21, 22, 72, 75]
    packed_qkv = torch.randn(77, heads + 2 * kv_heads, dim, device=target.device)
    q, k, v = packed_qkv.split([heads, kv_heads, kv_heads], 1)
    causal = 'causal' in kind
    back, ahead = 5 if 'window' in kind else None, 3 if 'ahead' in kind else 0
    table = torch.arange(77, device=target.device)[None, :] + ints(starts[:-1], target.device)[:, None]
    want = naive.paged_attention(
        q, k[:, None], v[:, None], starts, lengths, table, scale=0.2, causal=causal, window=(back or -1, ahead or -1)
    )
    out = torch.full_like(q, 7)
    with public(target, 'triton_prefill_attention') as ops:
        ops.context_attention_fwd(
            q, k, v, out, ints(starts if ends else starts[:-1], target.device), ints(lengths, target.device), 50,
            causal, 0.2, back, ahead,
        )  # fmt: skip
    assert naive.error(out[:75], want[:75]) < 2 * naive.TOLERANCE[torch.float32]
    assert (out[75:] == 7).all()


@pytest.mark.parametrize('name', ['fp8', 'fp8_e5m2'])
@pytest.mark.parametrize('as_bytes', [False, True])
def test_fp8_caches(target, name, as_bytes):
    if target.name == 'interpreted':
        pytest.skip('the interpreter has no fp8 conversion')
    stored = torch.float8_e5m2 if name == 'fp8_e5m2' else torch.float8_e4m3fn
    lengths, heads, kv_heads, dim, device = [40, 7, 100], 6, 2, 64, target.device
    q, k, v, starts, table = decode_batch(target, lengths, heads, kv_heads, dim, 16, torch.float32)
    k_scale, v_scale = torch.tensor([0.5], device=device), torch.tensor([2.0], device=device)
    k, v = ((x.nan_to_num() / s).to(stored) for x, s in ((k, k_scale), (v, v_scale)))
    wide = k.float() * k_scale, v.float() * v_scale
    want = naive.paged_attention(q, *wide, starts, lengths, table, scale=0.2)
    keys, values = packed(k.view(torch.uint8), v.view(torch.uint8))
    if not as_bytes:
        keys, values = keys.view(stored), values.view(stored)
    out, lens = torch.zeros_like(q), ints(lengths, device)
    with public(target, 'paged_attention') as ops:
        ops.paged_attention_v1(
            out, q, keys, values, kv_heads, 0.2, table, lens, 16, 100, None, name, k_scale, v_scale
        )
        assert naive.error(out, want) < 1e-5
        if name == 'fp8':
            out, lse = torch.zeros_like(q), torch.zeros(3, heads, device=device)
            k, v = (k.view(torch.uint8), v.view(torch.uint8)) if as_bytes else (k, v)
            scratch = torch.empty(3, heads, 4, dim + 1, device=device)
            ops.decode_attention_fwd(
                q, k, v, out, lse, table, lens, scratch, 4, 0.2, 16, 0.0, k_scale, v_scale
            )
            assert naive.error(out, want) < 1e-5
    new_k, new_v = (torch.stack([x[int(table[i, (n - 1) // 16]), (n - 1) % 16] for i, n in enumerate(lengths)])
                    for x in wide)
    out = torch.zeros_like(q)
    with public(target, 'prefix_prefill') as ops:
        ops.context_attention_fwd(
            q, new_k, new_v, out, name, keys, values, table, ints(starts, device), lens, 100, 1, k_scale, v_scale,
            sm_scale=0.2,
        )
    assert naive.error(out, want) < 1e-5


def test_mistakes(target):
    device = target.device
    q, one, lens = torch.zeros(2, 4, 64, device=device), torch.ones(1, device=device), ints([1, 1], device)
    keys, values = torch.zeros(3, 2, 8, 16, 8, device=device), torch.zeros(3, 2, 64, 16, device=device)
    table = ints([[0], [1]], device)
    rest = (0.1, table, lens, 16, 16, None, 'auto', one, one)
    with public(target, 'paged_attention') as ops:
        with pytest.raises(ValueError, match='block-sparse'):
            ops.paged_attention_v1(q, q, keys, values, 2, *rest, blocksparse_vert_stride=8)
        with pytest.raises(ValueError, match='do not fit 4 query heads of 64, 4 key heads'):
            ops.paged_attention_v1(q, q, keys, values, 4, *rest)
        small = torch.zeros(2, 4, 0, device=device)
        with pytest.raises(ValueError, match=r'exp_sum must be at least \(2, 4, 1\)'):
            ops.paged_attention_v2(q, small, small, small, q, keys, values, 2, *rest)
        with pytest.raises(ValueError, match='attn_logits must be at least'):
            ops.decode_attention_fwd(q, q, q, q, q, table, lens, torch.zeros(2, 4, 1, 64), 1, 0.1)
    with public(target, 'prefix_prefill') as ops, pytest.raises(ValueError, match='is_block_table_ptr'):
        ops.context_attention_fwd(
            q, q, q, q, 'auto', keys, values, table, lens, lens, 16, 1, one, one, is_block_table_ptr=True
        )
