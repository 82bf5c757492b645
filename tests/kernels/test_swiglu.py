import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from swiftlite_kernels.swiglu import LowRank
from swiftlite_kernels.swiglu.reference import added
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


@given(
    shape=st.sampled_from([(1, 7), (33, 65), (70, 130)]),
    ranks=st.sampled_from([(8, 8, 8), (3, 0, 24), (0, 40, 0), (150, 8, 260)]),
    dropout=st.sampled_from([0.0, 0.3]), dtype=st.integers(0, 2),
)  # fmt: skip
def test_adapters_are_added_on_the_way(target, shape, ranks, dropout, dtype):
    """As if gate, up and the gradient had been added to before."""
    dtype = target.dtypes[dtype % len(target.dtypes)]
    gate, up, slope = (torch.randn(shape, device=target.device).to(dtype) for _ in range(3))
    factors = []
    for i, rank in enumerate(ranks):
        wide = torch.randn(shape[0], rank + 5, device=target.device).to(dtype)
        right = torch.randn(rank, shape[1], device=target.device).to(dtype).T
        options = (dropout, 2**50 + 3) if i == 2 else ()
        factors.append(LowRank(wide[:, :rank], right, 0.3, *options) if rank else None)
    (wanted,), grads = exact(
        lambda g, u: F.silu(g) * u,
        [added(x.double().cpu(), more and moved(more)) for x, more in zip((gate, up), factors, strict=False)],
        [added(slope.double().cpu(), factors[2] and moved(factors[2]))],
    )
    out = torch.empty_like(gate)
    ops = target.ops('swiglu')
    ops.swiglu(out, gate, up, *factors[:2])
    assert naive.error(out, wanted) < 2 * naive.TOLERANCE[dtype]
    ops.swiglu_backward(gate, up, slope, True, *factors)
    assert torch.equal(slope, out)
    for found, grad in zip((gate, up), grads, strict=True):
        assert naive.error(found, grad) < 2 * naive.TOLERANCE[dtype]


def moved(more):
    return LowRank(more.left.double().cpu(), more.right.double().cpu(), more.scale, more.dropout, more.seed)


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
