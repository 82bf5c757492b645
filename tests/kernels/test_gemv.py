import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from swiftlite_kernels.paged_lora import Expansion, LoRARouting
from tests.kernels import naive


@given(
    inner=st.sampled_from([64, 896, 769, 9001]), width=st.sampled_from([48, 770, 1152]), normed=st.booleans(),
    biased=st.booleans(), gated=st.booleans(), added=st.sampled_from(['no', 'yes', 'in place']),
    dtype=st.integers(0, 2),
)
def test_gemv(target, inner, width, normed, biased, gated, added, dtype):
    dtype, device = target.dtypes[dtype % len(target.dtypes)], target.device
    weight = (torch.randn(width, inner + 8, device=device) / inner**0.5).to(dtype)[:, :inner]
    x = torch.randn(1, inner, device=device).to(dtype)
    bias = torch.randn(width, device=device).to(dtype) if biased else None
    gain = torch.rand(inner, device=device).to(dtype) + 0.5 if normed else None
    columns = width // 2 if gated else width
    residual = None if added == 'no' else torch.randn(1, columns, device=device).to(dtype)
    want = (naive.rms_norm(x, gain, 1e-6) if normed else x.double()) @ weight.double().T
    if biased:
        want = want + bias.double()
    if gated:
        want = F.silu(want[:, :columns]) * want[:, columns:]
    if residual is not None:
        want = want + residual.double()
    out = residual if added == 'in place' else torch.full((1, columns), float('nan'), device=device, dtype=dtype)
    target.ops('gemv').gemv(out, x, weight, bias, residual, gain, 1e-6, gated, None)
    assert naive.error(out, want) < naive.TOLERANCE[dtype]


@given(
    inner=st.sampled_from([64, 769, 5001]), widths=st.sampled_from([(48,), (130, 34, 34), (70, 70)]),
    rank=st.sampled_from([0, 1, 16, 40]), normed=st.booleans(), gated=st.booleans(), dtype=st.integers(0, 2),
)
def test_an_adapter_joins_the_product(target, inner, widths, rank, normed, gated, dtype):
    dtype, device = target.dtypes[dtype % len(target.dtypes)], target.device
    gated, pool, width = gated and len(widths) == 2, 50, sum(widths)
    table = torch.randperm(pool, device=device)[None, :40].int()
    one = torch.ones(1, dtype=torch.int32, device=device)
    where = LoRARouting(one * 0, one * 0, one, table, one * rank, 16)
    weight = (torch.randn(width, inner, device=device) / inner**0.5).to(dtype)
    x = torch.randn(1, inner, device=device).to(dtype)
    gain = torch.rand(inner, device=device).to(dtype) + 0.5 if normed else None
    a = (torch.randn(len(widths), pool, inner, device=device) / inner**0.5).to(dtype)
    b = torch.randn(pool, width, device=device).to(dtype)
    given = naive.rms_norm(x, gain, 1e-6) if normed else x.double()
    want, rows = given @ weight.double().T, table[0, :rank].long()
    for s in range(len(widths)):
        columns = slice(sum(widths[:s]), sum(widths[: s + 1]))
        want[:, columns] += given @ a[s, rows].double().T @ b[rows, columns].double()
    if gated:
        want = F.silu(want[:, : widths[0]]) * want[:, widths[0] :]
    out = torch.full_like(want, float('nan')).to(dtype)
    lora = Expansion(target.ops('paged_lora').shrink(x, a, where, gain), b, widths, where)
    target.ops('gemv').gemv(out, x, weight, None, None, gain, 1e-6, gated, lora)
    assert naive.error(out, want) < 2 * naive.TOLERANCE[dtype]


def test_one_row_only():
    from swiftlite_kernels.gemv import gemv

    x = torch.zeros(2, 8)
    with pytest.raises(ValueError, match='takes one row, got 2'):
        gemv(x, x, x)
