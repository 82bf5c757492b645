import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swiftlite_kernels.paged_lora import LoRARouting
from tests.kernels import naive

TILE = 16


def routing(runs, ranks, pool, device):
    """Tiles for runs of (adapter or None, tokens), over adapters of `ranks` at random places of a pool."""
    places = torch.randperm(pool).tolist()
    table = torch.zeros(len(ranks), max(ranks), dtype=torch.int32)
    for i, rank in enumerate(ranks):
        table[i, :rank] = torch.tensor([places.pop() for _ in range(rank)])
    tiles, token = [(0, 0, 0)], 0  # one that is not used
    for adapter, count in runs:
        for first in range(0, count, TILE) if adapter is not None else ():
            tiles.append((adapter, token + first, min(TILE, count - first)))
        token += count
    columns = [torch.tensor(c, dtype=torch.int32, device=device) for c in zip(*tiles, strict=True)]
    return LoRARouting(*columns, table.to(device), torch.tensor(ranks, dtype=torch.int32, device=device), TILE), token


RUNS = st.lists(st.tuples(st.sampled_from([None, 0, 1, 2]), st.integers(1, 37)), min_size=1, max_size=5)


@given(runs=RUNS, widths=st.lists(st.sampled_from([16, 130, 300]), min_size=1, max_size=4),
       inner=st.sampled_from([64, 769]), ranks=st.lists(st.sampled_from([1, 8, 16, 20, 40]), min_size=3, max_size=3),
       dtype=st.integers(0, 2))
def test_every_token_gets_its_adapter(target, runs, widths, inner, ranks, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    pool = sum(ranks) + 9
    where, tokens = routing(runs, ranks, pool, target.device)
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
    target.ops('paged_lora').add_lora(y, x, a, b, widths, where)
    assert naive.error(y, expected) < naive.TOLERANCE[dtype]
    token = 0
    for adapter, count in runs:
        if adapter is None:
            assert torch.equal(y[token : token + count], before[token : token + count])
        token += count


def test_no_tokens(target):
    where, _ = routing([(0, 3)], [8], 8, target.device)
    empty = torch.empty(0, 16, device=target.device)
    target.ops('paged_lora').add_lora(empty, empty, torch.ones(1, 8, 16, device=target.device),
                                      torch.ones(8, 16, device=target.device), [16], where)


@pytest.mark.parametrize('split', [1, 7])
def test_shares_of_a_long_input_add_up(target, split):
    """A single tile is spread over many programs."""
    where, tokens = routing([(0, split)], [16], 20, target.device)
    inner = 700 if target.name == 'interpreted' else 18944
    x = torch.randn(tokens, inner, device=target.device)
    a, b = torch.randn(1, 20, inner, device=target.device) / inner**0.5, torch.randn(20, 40, device=target.device)
    y = torch.zeros(tokens, 40, device=target.device)
    target.ops('paged_lora').add_lora(y, x, a, b, [40], where)
    rows = where.pool_rows[0, :16].long()
    exact = x.double() @ a[0, rows].double().t() @ b[rows].double()
    assert naive.error(y, exact) < naive.TOLERANCE[torch.float32]
