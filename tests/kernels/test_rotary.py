import pytest
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


@given(
    tokens=st.integers(1, 6), heads=st.sampled_from([(1, 1), (7, 1), (4, 4), (14, 2)]),
    head_size=st.sampled_from([24, 64, 80, 128]), rotation=st.sampled_from(['whole', 'half', 'pairs']),
    biased=st.booleans(), normed=st.sampled_from([(False, False), (True, True), (False, True)]), dtype=st.integers(0,
    2),
)
def test_fused_equals_the_separate_ops(target, tokens, heads, head_size, rotation, biased, normed, dtype):
    dtype, device = target.dtypes[dtype % len(target.dtypes)], target.device
    heads, kv_heads = heads
    width = (heads + 2 * kv_heads) * head_size
    qkv = torch.randn(tokens, width + 8, device=device).to(dtype)[:, :width]
    bias = torch.randn(width, device=device).to(dtype) if biased else None
    weights = [torch.randn(head_size, device=device).to(dtype) if given else None for given in normed]
    table = angles(head_size // (2 if rotation == 'half' else 1), device)
    positions = torch.randint(0, 64, (tokens,), device=device)
    slots = torch.randperm(64, device=device)[:tokens]
    slots[1::3] = -1
    cache = torch.zeros(4, 2, 16, kv_heads, head_size, device=device, dtype=dtype)
    one = torch.ones(1, device=device)

    rows = qkv.cpu() if bias is None else (qkv.cpu() + bias.cpu())
    query, key, value = rows.unflatten(-1, (-1, head_size)).split([heads, kv_heads, kv_heads], dim=1)
    parts = []
    for x, weight in zip((query, key), weights, strict=True):
        x = x.double() if weight is None else naive.rms_norm(x, weight.cpu(), 1e-6)
        parts.append(naive.rotate(x, positions.cpu(), table.cpu(), rotation != 'pairs', 0, False))
    target.ops('rotary').rotary_and_cache(
        qkv, bias, *weights, 1e-6, positions, head_size, table, rotation != 'pairs', cache[:, 0], cache[:, 1], slots,
        'auto', one, one,
    )
    assert naive.error(qkv[:, : heads * head_size].reshape(tokens, heads, head_size),
    parts[0]) < 2 * naive.TOLERANCE[dtype]
    want = torch.zeros(2, 64, kv_heads, head_size, dtype=torch.float64)
    for token, slot in enumerate(slots.tolist()):
        if slot >= 0:
            want[0, slot], want[1, slot] = parts[1][token], value[token].double()
    assert naive.error(cache[:, 0].reshape(64, kv_heads, head_size), want[0]) < 2 * naive.TOLERANCE[dtype]
    assert torch.equal(cache[:, 1].reshape(64, kv_heads, head_size).double().cpu(), want[1])


def test_fused_fp8(target):
    if target.name == 'interpreted':
        pytest.skip('the interpreter has no fp8 conversion')
    qkv = torch.randn(5, 8 * 64, device=target.device)
    caches = [torch.zeros(2, 2, 16, 2, 64, device=target.device, dtype=torch.uint8) for _ in range(2)]
    positions, slots = torch.arange(5, device=target.device), torch.tensor([3, 0, -1, 31, 16], device=target.device)
    scales = torch.tensor([0.5, 2.0], device=target.device)
    table = angles(64, target.device)
    separate = qkv.clone()
    target.ops('rotary').rotary_and_cache(
        qkv, None, None, None, 1e-6, positions, 64, table, True, caches[0][:, 0], caches[0][:, 1], slots, 'fp8', scales,
        scales,
    )
    query, key, value = separate.view(5, 8, 64).split([4, 2, 2], dim=1)
    target.ops('rotary').rotary_embedding(positions, query, key, 64, table, True)
    target.ops('cache').reshape_and_cache_flash(
        key, value, caches[1][:, 0], caches[1][:, 1], slots, 'fp8', scales, scales
    )
    assert naive.error(qkv[:, :256], separate[:, :256]) < 1e-6
    assert naive.error(*[x.view(torch.float8_e4m3fn).float() for x in caches]) < 1e-3
