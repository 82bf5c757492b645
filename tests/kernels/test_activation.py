import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive

OPS = {
    'silu_and_mul': ('silu', F.silu, False),
    'mul_and_silu': ('silu', F.silu, True),
    'gelu_and_mul': ('gelu', F.gelu, False),
    'gelu_tanh_and_mul': ('gelu_tanh', lambda x: F.gelu(x, approximate='tanh'), False),
}


@pytest.mark.parametrize('name', OPS)
@given(rows=st.integers(1, 5), width=st.sampled_from([1, 24, 769, 2048]), dtype=st.integers(0, 2),
strided=st.booleans())
def test_gated(target, name, rows, width, dtype, strided):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    x = (torch.randn(rows, 2 * width + (8 if strided else 0), device=target.device) * 4).to(dtype)[:, : 2 * width]
    out = torch.full((rows, width), float('nan'), device=target.device, dtype=dtype)
    getattr(target.ops('activation'), name)(out, x)
    formula, torch_act, up_first = OPS[name]
    up, gate = (x[:, :width], x[:, width:]) if up_first else (x[:, width:], x[:, :width])
    want = naive.activation(formula, gate) * up.double()
    assert naive.error(out, want, gate.double() * up.double()) < naive.TOLERANCE[dtype]
    if target.name == 'reference':  # rounded to the dtype before the product
        assert torch.equal(out, torch_act(gate) * up)


def test_rounds_before_the_product(target):
    """Times three gives three times a representable number; fp32 accuracy alone would not."""
    x = torch.randn(4, 2 * 512, device=target.device).to(torch.float16)
    x[:, 512:] = 1
    plain, tripled = torch.empty(2, 4, 512, device=target.device, dtype=torch.float16)
    for name in OPS:
        if not OPS[name][2]:
            op = getattr(target.ops('activation'), name)
            op(plain, x)
            op(tripled, torch.cat([x[:, :512], x[:, 512:] * 3], 1))
            assert torch.equal(tripled, plain * 3)
