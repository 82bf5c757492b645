import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

E4M3 = torch.float8_e4m3fn


def quantize(target, *args, **kw):
    """The public op; its Triton version in an interpreted run."""
    from swiftlite_kernels import quant

    if target.name != 'interpreted':
        return quant.scaled_fp8_quant(*args, **kw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quant, 'backend', lambda family, x: target.ops(family))
        return quant.scaled_fp8_quant(*args, **kw)


def make(target, rows, columns, dtype, size=1.0):
    """Rows of a wider tensor."""
    return (torch.randn(rows, columns + 7, device=target.device) * size).to(dtype)[:, 3 : 3 + columns]


def same_bytes(target, got, exact):
    """got holds `exact` rounded to fp8; interpreted, where fp8 rounding is wrong now and then, most of it does."""
    same = got.view(torch.uint8) == exact.clamp(-448, 448).to(E4M3).view(torch.uint8)
    return bool(same.all()) or (target.name == 'interpreted' and float(same.float().mean()) > 0.8 - 2 / same.numel())


@given(
    rows=st.integers(1, 9),
    columns=st.sampled_from([1, 16, 769, 1024, 5125]),
    dtype=st.integers(0, 2),
    size=st.sampled_from([0.0, 1e-4, 1.0, 3000.0]),
    padding=st.sampled_from([None, 1, 12]),
    bound=st.sampled_from([None, 0.7]),
)
def test_dynamic(target, rows, columns, dtype, size, padding, bound):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    x = make(target, rows, columns, dtype, size)
    wide = x.float()
    limit = None if bound is None else torch.tensor([bound], device=target.device)
    out, scale = quantize(target, x, None, padding, limit, True)
    assert out.dtype == E4M3 and out.shape == (max(rows, padding or 0), columns) and scale.shape == (out.shape[0], 1)
    want = wide.abs().amax(1, keepdim=True).clamp(max=bound or torch.inf) / 448
    want = want.clamp(min=1 / (448 * 512))
    torch.testing.assert_close(scale[:rows], want, rtol=2e-7, atol=0)
    assert same_bytes(target, out[:rows], wide / scale[:rows])
    assert not out[rows:].view(torch.uint8).any()
    out, scale = quantize(target, x, num_token_padding=padding)
    torch.testing.assert_close(scale, (wide.abs().max() / 448).clamp(min=2e-38).view(1), rtol=2e-7, atol=1e-37)
    assert same_bytes(target, out[:rows], wide * (1 / scale))
    assert not out[rows:].view(torch.uint8).any()


@pytest.mark.parametrize(
    ('shape', 'group'),
    [
        ((1,), None),
        ((), None),
        ((6, 1), None),
        ((6,), (1, -1)),
        ((1, 96), None),
        ((96,), (-1, 1)),
        ((3, 4), (2, 24)),
        ((1, 4), (-1, 24)),
    ],
)
def test_static(target, shape, group):
    x = make(target, 6, 96, torch.float32, 300)
    scale = torch.rand(shape, device=target.device) + 0.5
    output = torch.empty(6, 128, device=target.device, dtype=E4M3)[:, :96]
    out, same = quantize(target, x, scale, output=output, group_shape=group)
    assert out is output and same is scale
    wide = scale.reshape(1, 1) if scale.numel() == 1 else scale
    if wide.dim() == 1:
        wide = wide[:, None] if group == (1, -1) else wide[None]
    wide = wide.repeat_interleave(6 // wide.shape[0], 0).repeat_interleave(96 // wide.shape[1], 1)
    assert same_bytes(target, out, x * (1 / wide))


def test_no_rows(target):
    x = torch.empty(0, 64, device=target.device)
    for kw in ({}, {'use_per_token_if_dynamic': True}, {'scale': torch.ones(1, device=target.device)}):
        out, _ = quantize(target, x, **kw)
        assert out.shape == (0, 64)
    out, scale = quantize(target, x, None, 3, None, True)
    assert out.shape == (3, 64) and scale.shape == (3, 1) and not out.view(torch.uint8).any()


@pytest.mark.parametrize(
    ('shape', 'kw', 'says'),
    [
        ((2, 3, 4), {}, 'two dimensions'),
        ((2, 4), {'scale': torch.ones(4)}, 'needs group_shape'),
        ((2, 4), {'scale': torch.ones(3, 4)}, 'does not divide'),
        ((2, 4), {'scale': torch.ones(2, 2), 'group_shape': (1, 4)}, 'another scale'),
        ((2, 4), {'scale': torch.ones(1).double()}, 'must be float32'),
        ((2, 4), {'scale_ub': torch.ones(1)}, 'use_per_token_if_dynamic'),
        ((2, 4), {'output': torch.ones(2, 4)}, 'must be float8_e4m3fn'),
        ((2, 4), {'output': torch.ones(2, 4).to(E4M3), 'num_token_padding': 4}, 'cannot both'),
    ],
)
def test_mistakes(target, shape, kw, says):
    with pytest.raises(ValueError, match=says):
        quantize(target, torch.ones(shape, device=target.device), **kw)
