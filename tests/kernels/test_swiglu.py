import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive
from tests.kernels.gradients import exact


@given(shape=st.tuples(st.integers(1, 5), st.sampled_from([3, 64, 2049])), dtype=st.integers(0, 2))
def test_output_and_gradients(target, shape, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    gate, up, slope = (torch.randn(shape, device=target.device).mul(3).to(dtype) for _ in range(3))
    (wanted,), grads = exact(lambda g, u: F.silu(g) * u, [gate, up], [slope])
    out = torch.empty_like(gate)
    ops = target.ops('swiglu')
    ops.swiglu(out, gate, up)
    assert naive.error(out, wanted) < naive.TOLERANCE[dtype]
    left = slope.clone()
    again = gate.clone(), up.clone()
    ops.swiglu_backward(*again, left, False)
    assert torch.equal(left, slope)
    ops.swiglu_backward(gate, up, slope)
    assert torch.equal(slope, out)  # the output again, to the bit
    assert torch.equal(again[0], gate)
    assert torch.equal(again[1], up)
    for found, grad in zip((gate, up), grads, strict=True):
        assert naive.error(found, grad) < naive.TOLERANCE[dtype]


def test_large_gates_stay_finite(target):
    gate = torch.tensor([[-200.0, 200.0, -1e4, 0.0]], device=target.device)
    up, slope = torch.ones_like(gate), torch.ones_like(gate)
    target.ops('swiglu').swiglu_backward(gate, up, slope)
    assert torch.allclose(gate.cpu(), torch.tensor([[0.0, 1.0, 0.0, 0.5]]))


def test_gaps_are_refused(target):
    if target.name == 'reference':
        pytest.skip('torch takes any layout')
    wide = torch.zeros(4, 64, device=target.device)
    with pytest.raises(ValueError, match='contiguous'):
        target.ops('swiglu').swiglu(wide[:, :32], wide[:, :32], wide[:, 32:])
