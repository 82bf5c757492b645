import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive


def routing(mapping, adapters, device):
    """The seven routing tensors for a token -> adapter mapping (-1 = none)."""
    mapping = torch.tensor(mapping, dtype=torch.int32)
    order = mapping.argsort(stable=True).int()
    present, counts = mapping.unique(return_counts=True)
    ids = torch.full((adapters + 1,), -1, dtype=torch.int32)
    number = torch.zeros(adapters + 1, dtype=torch.int32)
    starts = torch.zeros(adapters + 2, dtype=torch.int32)
    ids[: len(present)], number[: len(present)] = present, counts.int()
    starts[1 : len(present) + 1] = counts.cumsum(0)
    on_device = [x.to(device) for x in (mapping, order, number, starts, ids)]
    return *on_device, torch.tensor([bool((mapping < 0).all())]), torch.tensor([adapters + 1], dtype=torch.int32)


BATCHES = st.lists(st.integers(-1, 3), min_size=1, max_size=40)


@given(mapping=BATCHES, width=st.sampled_from([64, 769]), rank=st.sampled_from([8, 16, 64, 96]),
       slices=st.sampled_from([1, 2, 3, 5]), four=st.booleans(), dtype=st.integers(0, 2))
def test_shrink(target, mapping, width, rank, slices, four, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    tokens = len(mapping)
    x = torch.randn(tokens, width, device=target.device).to(dtype)
    a = [torch.randn(4, 1, rank, width, device=target.device).to(dtype) for _ in range(slices)]
    out = torch.full((slices, tokens, rank), float('nan'), device=target.device)
    args = routing(mapping, 4, target.device)
    target.ops('lora').lora_shrink(x, a if four else [w[:, 0] for w in a], out, *args, 0.5)
    if max(mapping) < 0:
        assert out.isnan().all()
        return
    want = torch.zeros(slices, tokens, rank, dtype=torch.float64)
    for t, adapter in enumerate(mapping):
        if adapter >= 0:
            for s in range(slices):
                want[s, t] = 0.5 * a[s][adapter, 0].double().cpu() @ x[t].double().cpu()
    assert naive.error(out, want) < naive.TOLERANCE[dtype]


@given(mapping=BATCHES, widths=st.lists(st.sampled_from([24, 130, 769]), min_size=1, max_size=5),
       rank=st.sampled_from([8, 16, 64, 96]), offset=st.sampled_from([0, 40]), add=st.booleans(), dtype=st.integers(0,
       2))
def test_expand(target, mapping, widths, rank, offset, add, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    tokens = len(mapping)
    x = torch.randn(len(widths), tokens, rank, device=target.device)
    b = [torch.randn(4, n, rank, device=target.device).to(dtype) for n in widths]
    out = torch.randn(tokens, offset + sum(widths) + 7, device=target.device).to(dtype)
    want = out.double().cpu()
    for t, adapter in enumerate(mapping):
        column = offset
        for s, n in enumerate(widths):
            if adapter >= 0:
                product = b[s][adapter].double().cpu() @ x[s, t].double().cpu()
                want[t, column : column + n] = product + (want[t, column : column + n] if add else 0)
            column += n
    before = out.clone()
    target.ops('lora').lora_expand(x, b, out, *routing(mapping, 4, target.device), offset, add)
    assert naive.error(out, want) < naive.TOLERANCE[dtype]
    untouched = torch.tensor([adapter < 0 for adapter in mapping])
    assert torch.equal(out.cpu()[untouched], before.cpu()[untouched])
    assert torch.equal(out[:, :offset], before[:, :offset]) and torch.equal(out[:, -7:], before[:, -7:])


def test_together_equal_the_low_rank_product(target):
    """expand(shrink(x)) = x + scaling * B A x, as one adapter's merged weight would give."""
    x, base = torch.randn(5, 96, device=target.device), torch.randn(5, 64, device=target.device)
    a, b = torch.randn(2, 8, 96, device=target.device), torch.randn(2, 64, 8, device=target.device)
    args = routing([1, 0, -1, 1, 0], 2, target.device)
    middle, out = torch.empty(1, 5, 8, device=target.device), base.clone()
    ops = target.ops('lora')
    ops.lora_shrink(x, [a], middle, *args, 2.0)
    ops.lora_expand(middle, [b], out, *args, 0, True)
    for t, adapter in enumerate([1, 0, -1, 1, 0]):
        want = base[t].double()
        if adapter >= 0:
            want = want + 2.0 * b[adapter].double() @ a[adapter].double() @ x[t].double()
        assert naive.error(out[t], want) < 2e-6


@pytest.mark.parametrize('op', ['lora_shrink', 'lora_expand'])
def test_only_base_tokens_do_nothing(target, op):
    args = routing([-1, -1], 3, target.device)
    x, w, out = (torch.full(shape, float('nan'), device=target.device) for shape in ((2, 8), (3, 8, 8), (1, 2, 8)))
    if op == 'lora_shrink':
        target.ops('lora').lora_shrink(x, [w], out, *args, 1.0)
    else:
        out = torch.ones(2, 8, device=target.device)
        target.ops('lora').lora_expand(x[None], [w], out, *args)
        assert (out == 1).all()
