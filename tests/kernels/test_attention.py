from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive

SCORING = {
    'plain': {},
    'window': {'window': (9, 0)},
    'softcap': {'softcap': 5.0},
    'alibi': {'slopes': True},
    'alibi sqrt': {'slopes': True, 'alibi_sqrt': True},
    'sinks': {'sinks': True},
    'not causal': {'causal': False},
    'everything': {'causal': False, 'window': (6, 3), 'softcap': 3.0, 'slopes': True, 'sinks': True},
}


def make_batch(queries, befores, heads, kv_heads, dim, block_size, dtype, device, sliced=True):
    """Ragged queries over a shuffled paged cache whose unused places hold NaN."""
    lengths = [q + b for q, b in zip(queries, befores, strict=True)]
    width = -(-max(lengths) // block_size) + 1
    blocks = len(lengths) * width
    table = torch.randperm(blocks, device=device).view(len(lengths), width).int()
    cache = torch.full((blocks, 2, block_size, kv_heads, dim), float('nan'), device=device, dtype=dtype)
    for row, length in zip(table.tolist(), lengths, strict=True):
        for position in range(length):
            cache[row[position // block_size], :, position % block_size] = torch.randn(2, kv_heads, dim, device=device)
    k, v = (cache[:, 0], cache[:, 1]) if sliced else (cache[:, 0].contiguous(), cache[:, 1].contiguous())
    starts = [0]
    for n in queries:
        starts.append(starts[-1] + n)
    q = torch.randn(starts[-1] + 2, heads, dim, device=device).to(dtype)  # two rows of padding at the end
    return q, k, v, starts, lengths, table


def run(
    target,
    q,
    k,
    v,
    starts,
    lengths,
    table,
    *,
    scale=None,
    causal=True,
    window=(-1, -1),
    softcap=0.0,
    slopes=None,
    alibi_sqrt=False,
    sinks=None,
    k_descale=None,
    v_descale=None,
    out=None,
    longest=None,
    **kw,
):
    from swiftlite_kernels import attention

    if target.name == 'interpreted':
        import swiftlite_kernels.attention.triton as triton_ops

        attention = InterpretedAttention(triton_ops)
    out = torch.full_like(q, 7) if out is None else out
    counts = [b - a for a, b in pairwise(starts)]
    attention.unified_attention(
        q,
        k,
        v,
        out,
        torch.tensor(starts, dtype=torch.int32, device=q.device),
        max(counts),
        torch.tensor(lengths, dtype=torch.int32, device=q.device),
        longest or max(lengths),
        scale or q.shape[-1] ** -0.5,
        causal,
        window,
        table,
        softcap,
        None,
        k_descale,
        v_descale,
        alibi_slopes=slopes,
        use_alibi_sqrt=alibi_sqrt,
        sinks=sinks,
        **kw,
    )
    return out


class InterpretedAttention:
    """The public signature over the Triton module, for CPU tensors."""

    def __init__(self, ops):
        self.ops = ops

    def unified_attention(self, *args, **kw):
        head, (_, k_descale, v_descale) = args[:13], args[13:]
        self.ops.unified_attention(
            *head,
            k_descale,
            v_descale,
            kw.get('num_par_softmax_segments'),
            None,
            None,
            None,
            kw.get('alibi_slopes'),
            kw.get('output_scale'),
            kw.get('sinks'),
            kw.get('use_alibi_sqrt', False),
            kw.get('shared_prefix'),
        )


def options(scoring, heads, device):
    kw = dict(SCORING[scoring])
    if kw.get('slopes'):
        kw['slopes'] = torch.rand(heads, device=device)
    if kw.get('sinks'):
        kw['sinks'] = torch.randn(heads, device=device)
    return kw


BATCHES = {
    'prompts': ([3, 17, 40], [0, 0, 0]),
    'chunks': ([5, 1, 20], [30, 0, 7]),
    'decodes': ([1, 1, 1, 1], [4, 60, 17, 0]),
    'mixed': ([1, 33, 1, 2], [70, 0, 12, 40]),
    'one prompt': ([21], [0]),
    'one decode': ([1], [130]),
    'empty ones': ([1, 0, 4], [19, 0, 3]),
}


@pytest.mark.parametrize('batch', BATCHES)
@pytest.mark.parametrize('scoring', SCORING)
def test_batches(target, batch, scoring):
    if target.name == 'interpreted' and batch != 'mixed':
        pytest.skip('one batch is enough for the slow interpreter')
    queries, befores = BATCHES[batch]
    made = make_batch(queries, befores, 4, 2, 32, 16, torch.float32, target.device)
    kw = options(scoring, 4, target.device)
    out = run(target, *made, **kw)
    q, k, v, starts, lengths, table = made
    want = naive.paged_attention(q[:-2], k, v, starts, lengths, table, scale=32**-0.5, **kw)
    assert naive.error(out[:-2], want) < 2e-6
    assert (out[-2:] == 7).all()


@given(
    queries=st.lists(st.one_of(st.just(1), st.integers(1, 24)), min_size=1, max_size=5),
    seed=st.integers(0, 1000),
    heads=st.sampled_from([(4, 4), (8, 2), (7, 1), (14, 2)]),
    dim=st.sampled_from([24, 64, 80, 96, 112, 128, 256]),
    block_size=st.sampled_from([16, 32, 64, 5]),
    dtype=st.integers(0, 2),
    sliced=st.booleans(),
)
def test_shapes(target, queries, seed, heads, dim, block_size, dtype, sliced):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    generator = torch.Generator().manual_seed(seed)
    befores = torch.randint(0, 100, (len(queries),), generator=generator).tolist()
    made = make_batch(queries, befores, *heads, dim, block_size, dtype, target.device, sliced)
    out = run(target, *made)
    q, k, v, starts, lengths, table = made
    want = naive.paged_attention(q[:-2], k, v, starts, lengths, table, scale=dim**-0.5)
    assert naive.error(out[:-2], want) < naive.TOLERANCE[dtype]


@pytest.mark.parametrize('splits', [1, 2, 16])
@pytest.mark.parametrize('scoring', ['plain', 'window', 'sinks'])
def test_splits_agree(target, splits, scoring):
    made = make_batch([1, 1, 1], [600, 140, 3], 8, 2, 64, 16, torch.float32, target.device)
    kw = options(scoring, 8, target.device)
    out = run(target, *made, num_par_softmax_segments=splits, **kw)
    q, k, v, starts, lengths, table = made
    want = naive.paged_attention(q[:-2], k, v, starts, lengths, table, scale=0.125, **kw)
    assert naive.error(out[:-2], want) < 2e-6


def test_rows_are_independent(target):
    """A sequence's output is bitwise the same when the others in a batch of the same shape change."""
    queries, befores = [1, 30, 1, 9], [200, 5, 30, 0]
    q, k, v, starts, lengths, table = make_batch(queries, befores, 8, 2, 32, 16, torch.float32, target.device)
    first = run(target, q, k, v, starts, lengths, table)
    other = q.clone()
    other[1:31] = torch.randn_like(other[1:31])
    second = run(target, other, k, v, starts, lengths, table)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[31:-2], second[31:-2])


@pytest.mark.parametrize('as_bytes', [False, True])
def test_fp8_cache(target, as_bytes):
    if target.name == 'interpreted':
        pytest.skip('the interpreter has no fp8 conversion')
    dtype = torch.float16
    counts, ends = [1, 7, 1, 1], [50, 9, 130, 61]  # two decodes of a group, one alone, a prompt
    q, k, v, starts, lengths, table = make_batch(counts, ends, 8, 2, 64, 16, torch.float32, target.device)
    q = q.to(dtype)
    factors = torch.rand(2, 4, 2, device=target.device) + 0.5
    k8, v8 = k.nan_to_num().to(torch.float8_e4m3fn), v.nan_to_num().to(torch.float8_e4m3fn)
    per_block = torch.ones(2, k.shape[0], 1, 2, 1, device=target.device)
    for i, row in enumerate(table.tolist()):
        per_block[:, row] = factors[:, i].view(2, 1, 1, 2, 1)
    want = naive.paged_attention(
        q[:-2], k8.float() * per_block[0], v8.float() * per_block[1], starts, lengths, table, scale=0.125
    )
    if as_bytes:
        k8, v8 = k8.view(torch.uint8), v8.view(torch.uint8)
    out = run(target, q, k8, v8, starts, lengths, table, k_descale=factors[0], v_descale=factors[1])
    assert naive.error(out[:-2], want) < 2e-3


def test_output_scale(target):
    if target.name == 'interpreted':
        pytest.skip('the interpreter has no fp8 conversion')
    q, k, v, starts, lengths, table = make_batch([1, 7, 1], [50, 9, 300], 8, 2, 64, 16, torch.float32, target.device)
    plain = run(target, q, k, v, starts, lengths, table)
    out = torch.zeros_like(q, dtype=torch.float8_e4m3fn)
    scale = torch.tensor([0.25], device=target.device)
    run(target, q, k, v, starts, lengths, table, out=out, output_scale=scale)
    assert naive.error(out[:-2].float() * 0.25, plain[:-2]) < 0.05


@pytest.mark.parametrize(
    'name, value',
    [
        ('q_descale', 1),
        ('qq_bias', 1),
        ('mm_prefix_range', 1),
        ('kv_quant_mode', 2),
        ('k_scale_cache', 1),
        ('v_scale_cache', 1),
        ('chunk_lookback', 3),
    ],
)
def test_refuses_what_it_does_not_do(name, value):
    from swiftlite_kernels.attention import unified_attention

    x = torch.zeros(1, 1, 8)
    args = [x, x, x, x, x, 1, x, 1, 1.0, True, (-1, -1), x, 0.0, None, None, None]
    kw = {} if name == 'q_descale' else {name: value}
    if name == 'q_descale':
        args[13] = value
    with pytest.raises(ValueError, match=f'{name} is not supported'):
        unified_attention(*args, **kw)


@pytest.mark.parametrize('dim', [24, 64, 128])
@pytest.mark.parametrize('with_lse', [False, True])
def test_merge_attn_states(target, dim, with_lse):
    """Merging the halves of a softmax gives the whole; an empty half (±inf) may hold NaN."""
    tokens, heads = 6, 3
    scores = torch.randn(heads, tokens, 40, dtype=torch.float64) * 3
    values = torch.randn(heads, 40, dim, dtype=torch.float64)
    halves = []
    for part in (slice(0, 15), slice(15, 40)):
        lse = scores[..., part].logsumexp(-1)
        halves.append(((scores[..., part].softmax(-1) @ values[:, part]).transpose(0, 1), lse))
    want = (scores.softmax(-1) @ values).transpose(0, 1)
    want_lse = scores.logsumexp(-1)
    (prefix, prefix_lse), (suffix, suffix_lse) = [(o.float(), lse.float()) for o, lse in halves]
    want[0], want_lse[:, 0] = suffix[0].double(), suffix_lse[:, 0].double()
    prefix[0], prefix_lse[:, 0] = float('nan'), float('inf')
    want[1], want_lse[:, 1] = prefix[1].double(), prefix_lse[:, 1].double()
    suffix[1], suffix_lse[:, 1] = float('nan'), float('-inf')
    want[4:], want_lse[:, 4:] = suffix[4:].double(), suffix_lse[:, 4:].double()  # tokens without a prefix
    tensors = [x.to(target.device) for x in (prefix, prefix_lse, suffix, suffix_lse)]
    out = torch.empty(tokens, heads, dim, device=target.device)
    lse = torch.empty(heads, tokens, device=target.device) if with_lse else None
    target.ops('attention').merge_attn_states(out, *tensors, lse, 4)
    assert naive.error(out, want) < 1e-6
    assert lse is None or naive.error(lse, want_lse) < 1e-6


@pytest.mark.parametrize('splits', [1, 4])
@pytest.mark.parametrize('scoring', ['plain', 'softcap', 'sinks', 'everything'])
def test_a_shared_prefix_is_only_a_hint(target, splits, scoring):
    kw = options(scoring, 6, target.device)
    few = target.name == 'interpreted'
    common, befores = (144, [150, 150, 144, 300]) if few else (272, [300] * 12 + [272] + [500] * 12)
    count = len(befores)
    q, k, v, starts, lengths, table = make_batch([1] * count, befores, 6, 2, 16, 16, torch.float32, target.device)
    for shared in ((1, count, common), (0, 1, common), (1, 3, 16), (0, count, 0), (3, 3, 0))[: 1 if few else 5]:
        first, last, n = shared
        same = table.clone()
        same[first:last, : n // 16] = table[first, : n // 16] if last > first else 0
        made = (q, k, v, starts, lengths, same)
        expected = run(target, *made, num_par_softmax_segments=splits, **kw)
        hint = torch.tensor(shared, dtype=torch.int32, device=target.device)
        out = run(target, *made, num_par_softmax_segments=splits, shared_prefix=hint, **kw)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)


def test_launches_leave_nothing_behind(target):
    """Programs count each other: a second launch must find the counters as the first did."""
    count = 2 if target.name == 'interpreted' else 9
    length = 260 if target.name == 'interpreted' else 700
    made = make_batch([1] * count, [length] * count, 4, 2, 16, 16, torch.float32, target.device)
    first = run(target, *made, num_par_softmax_segments=8)
    for _ in range(3):
        assert torch.equal(run(target, *made, num_par_softmax_segments=8), first)


def test_prompts_without_keys_are_zeros(target):
    """A length of 0 leaves a prompt to somebody else; its neighbours do not notice."""
    queries = [150, 3, 1] if target.name == 'interpreted' else [300, 3, 1, 70]
    q, k, v, starts, lengths, table = make_batch(queries, [0] * len(queries), 4, 2, 16, 16, torch.float32,
                                                 target.device)
    whole = run(target, q, k, v, starts, lengths, table)
    out = run(target, q, k, v, starts, [0, *lengths[1:]], table)
    assert (out[: queries[0]] == 0).all()
    torch.testing.assert_close(out[queries[0] : starts[-1]], whole[queries[0] : starts[-1]])


def test_a_long_sequence_takes_more_splits(target, monkeypatch):
    """Those above LONG_SHARE keys a program are cut further; a graph, made for any length, has the same bits."""
    if target.name != 'reference':
        monkeypatch.setattr('swiftlite_kernels.attention.triton.multiprocessors', lambda device: 6)
    made = make_batch([1, 1, 1], [8200, 300, 1024], 1, 1, 96, 16, torch.float16, target.device)
    out = run(target, *made)
    q, k, v, starts, lengths, table = made
    want = naive.paged_attention(q[:-2], k, v, starts, lengths, table, scale=96**-0.5)
    assert naive.error(out[:-2], want) < naive.TOLERANCE[torch.float16]
    assert torch.equal(run(target, *made, longest=131072), out)


@pytest.mark.parametrize('block_size', [16, 64])
@pytest.mark.parametrize('splits', [1, 2])
def test_table_entries_past_the_length_are_not_used(target, block_size, splits):
    """Block numbers are loaded ahead of the keys; those of nobody lead nowhere."""
    q, k, v, starts, lengths, table = make_batch(
        [1, 1, 1, 1, 9], [127, 128, 200, 0, 55], 4, 2, 32, block_size, torch.float32, target.device
    )
    expected = run(target, q, k, v, starts, lengths, table, num_par_softmax_segments=splits)
    for row, length in zip(table, lengths, strict=True):
        row[-(-length // block_size) :] = 1 << 30
    assert torch.equal(run(target, q, k, v, starts, lengths, table, num_par_softmax_segments=splits), expected)
