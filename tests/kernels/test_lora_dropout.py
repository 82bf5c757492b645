import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swiftlite_kernels.lora_dropout.reference import dropped, kept
from tests.kernels import naive
from tests.kernels.gradients import exact


@given(
    shape=st.tuples(st.sampled_from([1, 17, 300]), st.sampled_from([8, 60, 200]), st.sampled_from([8, 24, 300])),
    p=st.sampled_from([0.05, 0.5]), strided=st.booleans(), whole=st.booleans(), dtype=st.integers(0, 2),
)  # fmt: skip
def test_output_and_gradients(target, shape, p, strided, whole, dtype):
    """The products with the mask that `kept` says, whichever device draws it."""
    rows, columns, rank = shape
    dtype, seed = target.dtypes[dtype % len(target.dtypes)], 2**61 + 0xFFFF1234
    x = torch.randn(rows, columns * (2 if strided else 1), device=target.device).to(dtype)[:, :columns]
    a = torch.randn(rank, columns, device=target.device).to(dtype)
    slope, other = torch.randn(rows, rank, device=target.device).to(dtype), torch.randn_like(x)

    (wanted,), (grad_x, grad_a) = exact(lambda x, a: dropped(x, p, seed) @ a.T, [x, a], [slope])
    ops = target.ops('lora_dropout')
    tolerance = 2 * naive.TOLERANCE[dtype]
    assert naive.error(ops.dropout_shrink(x, a, p, seed), wanted) < tolerance
    found = other.clone() if whole else None
    found_a = ops.dropout_shrink_backward(slope, x, a, p, seed, found)
    assert found_a.dtype == torch.float32
    assert naive.error(found_a, grad_a) < tolerance
    if whole:
        assert naive.error(found, grad_x + other.double().cpu()) < tolerance
        assert ops.dropout_shrink_backward(slope, None, a, p, seed, other) is None
        assert torch.equal(other, found)


def test_the_share_that_stays():
    for p in (0.05, 0.3):
        share = 1 - kept(400, 1000, p, 7, torch.device('cpu')).double().mean()
        assert share == pytest.approx(p, abs=4 * (p / 400_000) ** 0.5)


def test_seeds_rows_and_columns_are_independent():
    first, second = (kept(512, 128, 0.5, seed, torch.device('cpu')) for seed in (1, 2))
    assert (first == second).double().mean() == pytest.approx(0.5, abs=0.02)
    assert (first[:256] == first[256:]).double().mean() == pytest.approx(0.5, abs=0.02)
    assert (first[:, :64] == first[:, 64:]).double().mean() == pytest.approx(0.5, abs=0.02)
    assert (first[:, ::2] == first[:, 1::2]).double().mean() == pytest.approx(0.5, abs=0.02)
    assert (first[::2] == first[1::2]).double().mean() == pytest.approx(0.5, abs=0.02)


def test_rows_do_not_depend_on_their_number():
    assert torch.equal(kept(300, 60, 0.2, 5, torch.device('cpu')), kept(900, 60, 0.2, 5, torch.device('cpu'))[:300])


def test_the_hash_in_plain_integers():
    """lowbias32 as published, on the words that a row and a column give."""

    def mix(x):
        for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97)):
            x = ((x ^ x >> shift) * factor) % 2**32
        return x ^ x >> 15

    seed, p = 2**61 + 98765, 0.4
    found = kept(20, 30, p, seed, torch.device('cpu'))
    for row in range(20):
        for column in range(30):
            first, second = mix(mix(row) ^ seed % 2**32), mix(mix(column) ^ seed >> 32)
            assert bool(found[row, column]) == (mix(first ^ second) >= round(p * 2**32))
