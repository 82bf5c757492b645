import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swiftlite_kernels.paged_lora import Expansion, LoRARouting
from tests.kernels import naive


def routing(runs, ranks, pool, device, tile=16):
    """Tiles for runs of (adapter or None, tokens), over adapters of `ranks` at random places of a pool."""
    places = torch.randperm(pool).tolist()
    ranks = [*ranks, 0]  # the last one stands for no adapter
    table = torch.zeros(len(ranks), max(ranks), dtype=torch.int32)
    for i, rank in enumerate(ranks):
        table[i, :rank] = torch.tensor([places.pop() for _ in range(rank)])
    tiles, token = [(0, 0, 0)], 0  # one that is not used
    for adapter, count in runs:
        for first in range(0, count, tile):
            tiles.append((len(ranks) - 1 if adapter is None else adapter, token + first, min(tile, count - first)))
        token += count
    columns = [torch.tensor(c, dtype=torch.int32, device=device) for c in zip(*tiles, strict=True)]
    return LoRARouting(*columns, table.to(device), torch.tensor(ranks, dtype=torch.int32, device=device), tile), token


def add_lora(target, y, x, a, b, widths, where):
    ops = target.ops('paged_lora')
    ops.expand(y, ops.shrink(x, a, where, None), b, widths, where)


RUNS = st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.integers(1, 37)), min_size=1, max_size=5)


@given(runs=RUNS, widths=st.lists(st.sampled_from([16, 130, 300]), min_size=1, max_size=4),
       inner=st.sampled_from([64, 769]), ranks=st.lists(st.sampled_from([1, 8, 16, 20, 40]), min_size=3, max_size=3),
       dtype=st.integers(0, 2), tile=st.sampled_from([8, 16, 64]))
def test_every_token_gets_its_adapter(target, runs, widths, inner, ranks, dtype, tile):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    pool = sum(ranks) + 9
    where, tokens = routing(runs, ranks, pool, target.device, tile)
    x = torch.randn(tokens, inner, device=target.device).to(dtype)
    a = (torch.randn(len(widths), pool, inner, device=target.device) / inner**0.5).to(dtype)
    b = torch.randn(pool, sum(widths), device=target.device).to(dtype)
    y = torch.randn(tokens, sum(widths) + 3, device=target.device).to(dtype)[:, : sum(widths)]
    expected, token = y.double(), 0
    for adapter, count in runs:
        part = slice(token, token + count)
        token += count
        if adapter is None:
            continue
        rows = where.pool_rows[adapter, : ranks[adapter]].long()
        for s in range(len(widths)):
            columns = slice(sum(widths[:s]), sum(widths[: s + 1]))
            expected[part, columns] += x[part].double() @ a[s, rows].double().t() @ b[rows, columns].double()
    before = y.clone()
    add_lora(target, y, x, a, b, widths, where)
    assert naive.error(y, expected) < naive.TOLERANCE[dtype]
    token = 0
    for adapter, count in runs:
        if adapter is None:
            assert torch.equal(y[token : token + count], before[token : token + count])
        token += count


def test_no_tokens(target):
    where, _ = routing([(0, 3)], [8], 8, target.device)
    empty = torch.empty(0, 16, device=target.device)
    a, b = torch.ones(2, 8, 16, device=target.device), torch.ones(8, 16, device=target.device)
    add_lora(target, empty, empty, a[:1], b, [16], where)
    ops = target.ops('paged_lora')
    ops.expand_silu_and_mul(empty[:, :8], empty, ops.shrink(empty, a, where, None), b, where)


@pytest.mark.parametrize('split', [1, 7])
def test_shares_of_a_long_input_add_up(target, split):
    """A single tile is spread over many programs."""
    torch.manual_seed(0)  # sums of 18,944 products in fp32 come near the bound for some numbers
    where, tokens = routing([(0, split)], [16], 20, target.device)
    inner = 700 if target.name == 'interpreted' else 18944
    x = torch.randn(tokens, inner, device=target.device)
    a, b = torch.randn(1, 20, inner, device=target.device) / inner**0.5, torch.randn(20, 40, device=target.device)
    y = torch.zeros(tokens, 40, device=target.device)
    add_lora(target, y, x, a, b, [40], where)
    rows = where.pool_rows[0, :16].long()
    exact = x.double() @ a[0, rows].double().t() @ b[rows].double()
    assert naive.error(y, exact) < naive.TOLERANCE[torch.float32]


@given(runs=RUNS, width=st.sampled_from([16, 130, 300]), ranks=st.lists(st.sampled_from([1, 16, 40]), min_size=3,
       max_size=3), normed=st.booleans(), dtype=st.integers(0, 2), tile=st.sampled_from([8, 16, 64]))
def test_gate_after_the_adapters(target, runs, width, ranks, normed, dtype, tile):
    """Bit by bit what expanding into the output and gating it give."""
    dtype, device = target.dtypes[dtype % len(target.dtypes)], target.device
    pool, inner = sum(ranks) + 9, 72
    where, tokens = routing(runs, ranks, pool, device, tile)
    x = torch.randn(tokens, inner, device=device).to(dtype)
    a = (torch.randn(2, pool, inner, device=device) / inner**0.5).to(dtype)
    b = torch.randn(pool, 2 * width, device=device).to(dtype)
    gain = torch.rand(inner, device=device).to(dtype) if normed else None
    y = torch.randn(tokens, 2 * width, device=device).to(dtype)
    before, out = y.clone(), torch.full((tokens, width), float('nan'), device=device, dtype=dtype)
    ops = target.ops('paged_lora')
    shrunk = ops.shrink(x, a, where, gain)
    ops.expand_silu_and_mul(out, y, shrunk, b, where)
    assert torch.equal(y, before)
    ops.expand(y, ops.shrink(x if gain is None else x * gain, a, where, None), b, [width, width], where)
    two = torch.empty_like(out)
    target.ops('activation').silu_and_mul(two, y)
    assert torch.equal(out, two)
    token, want = 0, before.double()
    for adapter, count in runs:
        part = slice(token, token + count)
        token += count
        if adapter is not None:
            rows = where.pool_rows[adapter, : ranks[adapter]].long()
            scaled = (x if gain is None else x * gain)[part].double()
            for s in (0, 1):
                columns = slice(s * width, (s + 1) * width)
                want[part, columns] += scaled @ a[s, rows].double().t() @ b[rows, columns].double()
    gate, up = want.chunk(2, -1)
    assert naive.error(out, torch.nn.functional.silu(gate) * up) < 2 * naive.TOLERANCE[dtype]


def of_adapters(x, a, b, widths, runs, ranks, where):
    """What the adapters add to a layer's output, in fp64."""
    out, token = torch.zeros(x.shape[0], sum(widths), dtype=torch.float64, device=x.device), 0
    for adapter, count in runs:
        part = slice(token, token + count)
        token += count
        if adapter is not None:
            rows = where.pool_rows[adapter, : ranks[adapter]].long()
            for s in range(len(widths)):
                columns = slice(sum(widths[:s]), sum(widths[: s + 1]))
                out[part, columns] = x[part].double() @ a[s, rows].double().t() @ b[rows, columns].double()
    return out


@given(runs=RUNS, hidden=st.sampled_from([64, 130, 769, 1100]), weighted=st.booleans(), strided=st.booleans(),
       ranks=st.lists(st.sampled_from([1, 8, 16]), min_size=3, max_size=3) | st.just([1, 16, 40]),
       dtype=st.integers(0, 2), tile=st.sampled_from([8, 8, 8, 16]))
def test_norm_after_the_adapters(target, runs, hidden, weighted, strided, ranks, dtype, tile):
    dtype, device = target.dtypes[dtype % len(target.dtypes)], target.device
    pool, inner = sum(ranks) + 9, 72
    where, tokens = routing(runs, ranks, pool, device, tile)
    x = torch.randn(tokens, inner, device=device).to(dtype)
    a = (torch.randn(1, pool, inner, device=device) / inner**0.5).to(dtype)
    b = torch.randn(pool, hidden, device=device).to(dtype)
    y = torch.randn(tokens, hidden * (2 if strided else 1), device=device).to(dtype)[:, :hidden]
    residual = torch.randn(tokens, hidden, device=device).to(dtype)
    weight = torch.randn(hidden, device=device).to(dtype) if weighted else None
    total = y.double() + of_adapters(x, a, b, [hidden], runs, ranks, where) + residual.double()
    untouched, token = y + residual, 0
    lora = Expansion(target.ops('paged_lora').shrink(x, a, where, None), b, [hidden], where)
    target.ops('norm').fused_add_rms_norm(y, residual, weight, 1e-5, lora)
    assert naive.error(residual, total) < 2 * naive.TOLERANCE[dtype]
    assert naive.error(y, naive.rms_norm(residual, weight, 1e-5)) < naive.TOLERANCE[dtype]
    for adapter, count in runs:
        if adapter is None:
            assert torch.equal(residual[token : token + count], untouched[token : token + count])
        token += count


@given(runs=RUNS, heads=st.sampled_from([(1, 1), (7, 1), (4, 2)]), head_size=st.sampled_from([16, 24, 64, 80]),
       rotation=st.sampled_from(['whole', 'half']), biased=st.booleans(),
       normed=st.sampled_from([(False, False), (True, True), (False, True), (True, False)]),
       ranks=st.lists(st.sampled_from([1, 8, 16]), min_size=3, max_size=3) | st.just([1, 16, 40]),
       dtype=st.integers(0, 2), tile=st.sampled_from([8, 8, 8, 16]))
def test_rotation_after_the_adapters(target, runs, heads, head_size, rotation, biased, normed, ranks, dtype, tile):
    """As expanding first; the cache gets what is left in the projection."""
    dtype, device = target.dtypes[dtype % len(target.dtypes)], target.device
    pool, inner, (heads, kv_heads) = sum(ranks) + 9, 72, heads
    where, tokens = routing(runs, ranks, pool, device, tile)
    widths = [n * head_size for n in (heads, kv_heads, kv_heads)]
    x = torch.randn(tokens, inner, device=device).to(dtype)
    a = (torch.randn(3, pool, inner, device=device) / inner**0.5).to(dtype)
    b = torch.randn(pool, sum(widths), device=device).to(dtype)
    qkv = torch.randn(tokens, sum(widths) + 8, device=device).to(dtype)[:, : sum(widths)]
    bias = torch.randn(sum(widths), device=device).to(dtype) if biased else None
    weights = [torch.randn(head_size, device=device).to(dtype) if given else None for given in normed]
    angle = torch.rand(64, head_size // (4 if rotation == 'half' else 2), device=device) * 6
    table, positions = torch.cat([angle.cos(), angle.sin()], -1), torch.randint(0, 64, (tokens,), device=device)
    slots = torch.randperm(192, device=device)[:tokens]
    slots[1::3] = -1
    caches = [torch.zeros(12, 2, 16, kv_heads, head_size, device=device, dtype=dtype) for _ in range(2)]
    one, ops = torch.ones(1, device=device), target.ops('paged_lora')
    shrunk = ops.shrink(x, a, where, None)
    want = qkv.clone()
    ops.expand(want, shrunk, b, widths, where)
    for y, cache, lora in ((want, caches[0], None), (qkv, caches[1], Expansion(shrunk, b, widths, where))):
        target.ops('rotary').rotary_and_cache(
            y, bias, *weights, 1e-6, positions, head_size, table, True, cache[:, 0], cache[:, 1], slots, 'auto', one,
            one, lora,
        )
    assert naive.error(qkv, want) < naive.TOLERANCE[dtype]
    assert naive.error(caches[1], caches[0]) < naive.TOLERANCE[dtype]
    used, kept = slots >= 0, torch.zeros(192, dtype=torch.bool, device=device)
    kept[slots[used]] = True
    keys, values = (caches[1][:, i].reshape(192, -1) for i in (0, 1))
    assert torch.equal(keys[slots[used]], qkv[used][:, widths[0] : -widths[2]])
    assert torch.equal(values[slots[used]], qkv[used][:, -widths[2] :])
    assert not keys[~kept].any() and not values[~kept].any()


def test_an_order_is_not_ignored():
    from dataclasses import replace

    from swiftlite_kernels.paged_lora import expand_silu_and_mul

    where, tokens = routing([(0, 3)], [8], 8, 'cpu')
    where = replace(where, order=torch.arange(tokens))
    y, b = torch.ones(tokens, 16), torch.ones(8, 16)
    with pytest.raises(ValueError, match='not an order'):
        expand_silu_and_mul(y[:, :8], y, torch.zeros(1, tokens, 32), b, where)
    with pytest.raises(ValueError, match='not an order'):
        Expansion(torch.zeros(1, tokens, 16), b, [16], where)
