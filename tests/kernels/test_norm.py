import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive

SHAPES = st.tuples(st.integers(1, 5), st.sampled_from([8, 24, 128, 769, 896, 5125]))


@given(shape=SHAPES, strided=st.booleans(), weighted=st.booleans(), dtype=st.integers(0, 2), three=st.booleans())
def test_rms_norm(target, shape, strided, weighted, dtype, three):
    rows, hidden = shape
    dtype = target.dtypes[dtype % len(target.dtypes)]
    shape = (2, rows) if three else (rows,)
    wide = torch.randn(*shape, hidden * (2 if strided else 1), device=target.device).to(dtype)
    x = wide[..., :hidden]
    weight = torch.randn(hidden, device=target.device).to(dtype) if weighted else None
    out = torch.full_like(x, float('nan'), memory_format=torch.contiguous_format)
    before = wide.clone()
    target.ops('norm').rms_norm(out, x, weight, 1e-6)
    assert naive.error(out, naive.rms_norm(x, weight, 1e-6)) < naive.TOLERANCE[dtype]
    assert torch.equal(wide, before)


@given(shape=SHAPES, strided=st.booleans(), weighted=st.booleans(), dtype=st.integers(0, 2))
def test_fused_add_rms_norm(target, shape, strided, weighted, dtype):
    rows, hidden = shape
    dtype = target.dtypes[dtype % len(target.dtypes)]
    x = torch.randn(rows, hidden * (2 if strided else 1), device=target.device).to(dtype)[:, :hidden]
    residual = torch.randn(rows, hidden, device=target.device).to(dtype)
    weight = torch.randn(hidden, device=target.device).to(dtype) if weighted else None
    total = x + residual
    target.ops('norm').fused_add_rms_norm(x, residual, weight, 1e-5)
    assert torch.equal(residual, total)
    assert naive.error(x, naive.rms_norm(total, weight, 1e-5)) < naive.TOLERANCE[dtype]


def test_heads_of_a_packed_projection(target):
    """qk-norm reads [tokens, heads, head size] out of a wider row and writes in place."""
    packed = torch.randn(3, 10 * 64, device=target.device)
    heads = packed[:, : 6 * 64].view(3, 6, 64)
    weight = torch.randn(64, device=target.device)
    expected, rest = naive.rms_norm(heads, weight, 1e-6), packed[:, 6 * 64 :].clone()
    target.ops('norm').rms_norm(heads, heads, weight, 1e-6)
    assert naive.error(packed[:, : 6 * 64].view(3, 6, 64), expected) < 2e-6
    assert torch.equal(packed[:, 6 * 64 :], rest)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_rounds_before_the_weight(target, dtype):
    """The normalised value is rounded before the multiplication: a weight of 3 gives 3 x a representable number."""
    if dtype not in target.dtypes:
        dtype = torch.float16
    x = torch.randn(4, 256, device=target.device).to(dtype)
    plain, tripled = torch.empty_like(x), torch.empty_like(x)
    ops = target.ops('norm')
    ops.rms_norm(plain, x, None, 1e-6)
    ops.rms_norm(tripled, x, torch.full((256,), 3.0, device=target.device, dtype=dtype), 1e-6)
    assert torch.equal(tripled, plain * 3)
