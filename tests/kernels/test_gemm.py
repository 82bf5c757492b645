import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive


@given(
    rows=st.sampled_from([1, 2, 7, 16]), inner=st.sampled_from([64, 896, 769]), width=st.sampled_from([48, 770, 1152]),
    normed=st.booleans(), biased=st.booleans(), gated=st.booleans(), added=st.sampled_from(['no', 'yes', 'in place']),
    dtype=st.integers(0, 2),
)
def test_skinny_gemm(target, rows, inner, width, normed, biased, gated, added, dtype):
    dtype, device = target.dtypes[dtype % len(target.dtypes)], target.device
    x = torch.randn(rows, inner + 8, device=device).to(dtype)[:, :inner]
    weight = (torch.randn(width, inner, device=device) / inner**0.5).to(dtype)
    bias = torch.randn(width, device=device).to(dtype) if biased else None
    gain = torch.rand(inner, device=device).to(dtype) + 0.5 if normed else None
    columns = width // 2 if gated else width
    residual = None if added == 'no' else torch.randn(rows, columns, device=device).to(dtype)
    want = (naive.rms_norm(x, gain, 1e-6) if normed else x.double()) @ weight.double().T
    if biased:
        want = want + bias.double()
    if gated:
        want = F.silu(want[:, :columns]) * want[:, columns:]
    if residual is not None:
        want = want + residual.double()
    out = residual if added == 'in place' else torch.full((rows, columns), float('nan'), device=device, dtype=dtype)
    target.ops('gemm').skinny_gemm(out, x, weight, bias, residual, gain, 1e-6, gated)
    assert naive.error(out, want) < naive.TOLERANCE[dtype]


def test_rows_are_independent(target):
    """Bitwise the same row beside others, as long as there are others."""
    x, weight = torch.randn(5, 256, device=target.device), torch.randn(96, 256, device=target.device)
    first, second = torch.empty(5, 96, device=target.device), torch.empty(5, 96, device=target.device)
    ops = target.ops('gemm')
    ops.skinny_gemm(first, x, weight, None, None, None, 1e-6, False)
    other = x.clone()
    other[1:] = 7
    ops.skinny_gemm(second, other, weight, None, None, None, 1e-6, False)
    assert torch.equal(first[0], second[0])


def test_too_many_rows():
    from swiftlite_kernels.gemm import skinny_gemm

    x = torch.zeros(17, 8)
    with pytest.raises(ValueError, match='at most 16 rows, got 17'):
        skinny_gemm(x, x, x)
