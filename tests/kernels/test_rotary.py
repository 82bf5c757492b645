import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels import naive


def angles(rot_dim, device, dtype=torch.float32, positions=64):
    frequency = 10000.0 ** (-torch.arange(0, rot_dim, 2, device=device).double() / rot_dim)
    angle = torch.arange(positions, device=device).double()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], -1).to(dtype)


@given(
    tokens=st.integers(1, 7), heads=st.sampled_from([(1, 1), (7, 1), (4, 4), (14, 2)]),
    head_size=st.sampled_from([24, 64, 80, 96, 112, 128, 256]), neox=st.booleans(), partial=st.booleans(),
    padded=st.booleans(), with_key=st.booleans(), flat=st.booleans(), inverse=st.booleans(), dtype=st.integers(0, 2),
)
def test_rotary(target, tokens, heads, head_size, neox, partial, padded, with_key, flat, inverse, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    rot_dim, offset = (head_size // 2, head_size // 4) if partial else (head_size, 0)
    cache = angles(rot_dim, target.device)
    positions = torch.randint(0, 64, (tokens,), device=target.device)
    tensors = []
    for count in heads:
        stride = head_size + (64 if padded else 0)
        x = torch.randn(tokens, count, stride, device=target.device).to(dtype)[..., :head_size]
        tensors.append(x.reshape(tokens, -1) if flat else x)
    expected = [naive.rotate(x.reshape(tokens, -1, head_size), positions, cache, neox, offset,
    inverse) for x in tensors]
    query, key = tensors[0], tensors[1] if with_key else None
    target.ops('rotary').rotary_embedding(positions, query, key, head_size, cache, neox, offset, inverse)
    for x, want in zip(tensors[: 1 + with_key], expected, strict=False):
        assert naive.error(x.reshape(tokens, -1, head_size), want) < naive.TOLERANCE[dtype]


def test_slices_of_a_packed_projection(target):
    """Query and key are views of one qkv row; positions [batch, sequence]."""
    packed = torch.randn(2, 3, 8 * 64, device=target.device)
    query, key = packed[..., : 4 * 64], packed[..., 4 * 64 : 6 * 64]
    positions = torch.randint(0, 64, (2, 3), device=target.device)
    cache = angles(64, target.device)
    want = [naive.rotate(x.reshape(6, -1, 64), positions.flatten(), cache, True, 0, False) for x in (query, key)]
    value = packed[..., 6 * 64 :].clone()
    target.ops('rotary').rotary_embedding(positions, query, key, 64, cache, True)
    assert naive.error(packed[..., : 4 * 64].reshape(6, -1, 64), want[0]) < 2e-6
    assert naive.error(packed[..., 4 * 64 : 6 * 64].reshape(6, -1, 64), want[1]) < 2e-6
    assert torch.equal(packed[..., 6 * 64 :], value)


def test_inverse_undoes(target):
    x = torch.randn(5, 4, 64, device=target.device)
    turned, positions, cache = x.clone(), torch.arange(5, device=target.device), angles(64, target.device)
    ops = target.ops('rotary')
    ops.rotary_embedding(positions, turned, None, 64, cache, True)
    assert naive.error(turned, x) > 0.1
    ops.rotary_embedding(positions, turned, None, 64, cache, True, 0, True)
    assert naive.error(turned, x) < 1e-6
