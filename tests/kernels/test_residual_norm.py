import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive
from tests.kernels.gradients import exact

SHAPES = st.tuples(st.integers(1, 70), st.sampled_from([8, 24, 128, 769, 1030]))
EPSILON = 1e-6


def formula(x, weight):
    return naive.rms_norm(x, None, EPSILON) * weight


@given(shape=SHAPES, strided=st.booleans(), dtype=st.integers(0, 2))
def test_add_rms_norm(target, shape, strided, dtype):
    rows, hidden = shape
    dtype = target.dtypes[dtype % len(target.dtypes)]
    x = torch.randn(rows, hidden * (2 if strided else 1), device=target.device).to(dtype)[:, :hidden]
    residual, weight = (torch.randn(*s, device=target.device).to(dtype) for s in ((rows, hidden), (hidden,)))
    out, total = torch.empty_like(residual), torch.empty_like(residual)
    before = x.clone(), residual.clone()
    target.ops('residual_norm').add_rms_norm(out, total, x, residual, weight, EPSILON)
    assert torch.equal(total, x + residual)
    assert naive.error(out, naive.rms_norm(total, weight, EPSILON)) < naive.TOLERANCE[dtype]
    assert torch.equal(x, before[0])
    assert torch.equal(residual, before[1])


@given(
    shape=SHAPES, strided=st.booleans(), dtype=st.integers(0, 2), trained=st.booleans(), residual=st.booleans(),
    place=st.booleans(),
)  # fmt: skip
def test_backward(target, shape, strided, dtype, trained, residual, place):
    rows, hidden = shape
    dtype = target.dtypes[dtype % len(target.dtypes)]
    x = torch.randn(rows, hidden * (2 if strided else 1), device=target.device).to(dtype)[:, :hidden]
    slope, other = (torch.randn(rows, hidden, device=target.device).to(dtype) for _ in range(2))
    weight = torch.randn(hidden, device=target.device).to(dtype)
    _, (grad_x, grad_weight) = exact(formula, [x, weight], [slope])
    if residual:
        grad_x = grad_x + other.double().cpu()
    found = slope.clone() if place else torch.full_like(slope, float('nan'))
    found_weight = torch.full((hidden,), float('nan'), device=target.device) if trained else None
    target.ops('residual_norm').rms_norm_backward(
        found, found_weight, found if place else slope, other if residual else None, x, weight, EPSILON
    )
    assert naive.error(found, grad_x) < 2 * naive.TOLERANCE[dtype]
    assert not trained or naive.error(found_weight, grad_weight) < 4e-6


def test_many_rows_share_the_weights_gradient(target):
    """More rows than programs: each sums several."""
    x, slope, weight = torch.randn(3001, 40), torch.randn(3001, 40), torch.randn(40)
    _, (grad_x, grad_weight) = exact(formula, [x, weight], [slope])
    x, slope, weight = (t.to(target.device) for t in (x, slope, weight))
    found, found_weight = torch.empty_like(x), torch.empty_like(weight)
    target.ops('residual_norm').rms_norm_backward(found, found_weight, slope, None, x, weight, EPSILON)
    assert naive.error(found, grad_x) < 4e-6
    assert naive.error(found_weight, grad_weight) < 4e-6


@pytest.mark.parametrize('rows', [0])
def test_nothing(target, rows):
    x = torch.empty(rows, 8, device=target.device)
    grad = torch.ones(8, device=target.device)
    target.ops('residual_norm').rms_norm_backward(x, grad, x, None, x, torch.ones(8, device=target.device), EPSILON)
    assert not grad.any()
