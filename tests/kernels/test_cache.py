import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st


def make_cache(blocks, block_size, heads, dim, dtype, device, layout):
    """A pair of caches: contiguous, sliced out of [blocks, 2, ...], or with heads outermost in memory."""
    if layout == 'sliced':
        both = torch.zeros(blocks, 2, block_size, heads, dim, device=device).to(dtype)
        return both[:, 0], both[:, 1]
    shape = (blocks, heads, block_size, dim) if layout == 'heads first' else (blocks, block_size, heads, dim)
    pair = [torch.zeros(shape, device=device).to(dtype) for _ in range(2)]
    return [x.transpose(1, 2) if layout == 'heads first' else x for x in pair]


@given(
    tokens=st.integers(0, 9), heads=st.sampled_from([1, 2, 7]), dim=st.sampled_from([24, 64, 80, 128]),
    block_size=st.sampled_from([16, 32, 5]), layout=st.sampled_from(['plain', 'sliced', 'heads first']),
    padding=st.integers(0, 2), dtype=st.integers(0, 2),
)
def test_writes_slots_and_nothing_else(target, tokens, heads, dim, block_size, layout, padding, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    key_cache, value_cache = make_cache(4, block_size, heads, dim, dtype, target.device, layout)
    packed = torch.randn(tokens + padding, 3, heads, dim, device=target.device).to(dtype)
    key, value = packed[:, 0], packed[:, 1]
    slots = torch.randperm(4 * block_size)[:tokens]
    slots[1::3] = -1
    expected = [torch.zeros(4 * block_size, heads, dim, dtype=dtype) for _ in range(2)]
    for t, slot in enumerate(slots.tolist()):
        if slot >= 0:
            expected[0][slot], expected[1][slot] = key[t].cpu(), value[t].cpu()
    one = torch.ones(1, device=target.device)
    target.ops('cache').reshape_and_cache_flash(
        key, value, key_cache, value_cache, slots.to(target.device), 'auto', one, one
    )
    for cache, want in zip((key_cache, value_cache), expected, strict=True):
        assert torch.equal(cache.reshape(-1, heads, dim).cpu(), want)


@pytest.mark.parametrize('name', ['fp8', 'fp8_e4m3', 'fp8_e5m2'])
@pytest.mark.parametrize('per_head', [False, True])
@pytest.mark.parametrize('as_bytes', [False, True])
def test_fp8(target, name, per_head, as_bytes):
    if target.name == 'interpreted':
        pytest.skip('the interpreter has no fp8 conversion')
    dtype = torch.float8_e5m2 if name == 'fp8_e5m2' else torch.float8_e4m3fn
    key = torch.randn(6, 3, 64, device=target.device) * 300
    scales = torch.tensor([0.5, 2.0, 1.5] if per_head else [2.0], device=target.device)
    cache = torch.zeros(2, 2, 16, 3, 64, device=target.device, dtype=torch.uint8)
    if not as_bytes:
        cache = cache.view(dtype)
    slots = torch.tensor([3, 17, -1, 0, 31, 8], device=target.device)
    target.ops('cache').reshape_and_cache_flash(key, key, cache[:, 0], cache[:, 1], slots, name, scales, scales)
    limit = torch.finfo(dtype).max
    want = (key / scales.view(-1, 1)).clamp(-limit, limit).to(dtype).view(torch.uint8)
    got = cache.view(torch.uint8)
    for t, slot in enumerate(slots.tolist()):
        if slot >= 0:
            assert torch.equal(got[slot // 16, 0, slot % 16], want[t])
            assert torch.equal(got[slot // 16, 1, slot % 16], want[t])


def test_unknown_cache_dtype(target):
    x = torch.zeros(1, 1, 8, device=target.device)
    cache, slots = torch.zeros(1, 1, 1, 8, device=target.device), torch.zeros(1, dtype=torch.int64,
    device=target.device)
    with pytest.raises(ValueError, match="'int4' is not one of auto, fp8"):
        target.ops('cache').reshape_and_cache_flash(x, x, cache, cache, slots, 'int4', slots, slots)
