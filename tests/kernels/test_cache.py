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


def packed(target, blocks, heads, dim, block_size, dtype, x):
    """A pair of caches of the packed layout, the keys with a gap between blocks."""
    keys = torch.zeros(blocks, 2, heads, dim // x, block_size, x, device=target.device).to(dtype)[:, 1]
    return keys, torch.zeros(blocks, heads, dim, block_size, device=target.device).to(dtype)


@given(
    tokens=st.integers(0, 9), heads=st.sampled_from([1, 2, 7]), dim=st.sampled_from([24, 80, 112, 128]),
    block_size=st.sampled_from([16, 32, 5]), padding=st.integers(0, 2), dtype=st.integers(0, 2),
)
def test_packed_layout(target, tokens, heads, dim, block_size, padding, dtype):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    x = 16 // dtype.itemsize
    key_cache, value_cache = packed(target, 4, heads, dim, block_size, dtype, x)
    both = torch.randn(tokens + padding, 3, heads, dim, device=target.device).to(dtype)
    slots = torch.randperm(4 * block_size)[:tokens]
    slots[1::3] = -1
    one = torch.ones(1, device=target.device)
    target.ops('cache').reshape_and_cache(
        both[:, 0], both[:, 1], key_cache, value_cache, slots.to(target.device), 'auto', one, one
    )
    keys, values = torch.zeros_like(key_cache), torch.zeros_like(value_cache)
    for t, slot in enumerate(slots.tolist()):
        if slot >= 0:
            for h in range(heads):
                keys[slot // block_size, h, :, slot % block_size] = both[t, 0, h].view(-1, x)
                values[slot // block_size, h, :, slot % block_size] = both[t, 1, h]
    assert torch.equal(key_cache, keys) and torch.equal(value_cache, values)


@pytest.mark.parametrize('name', ['fp8', 'fp8_e5m2'])
def test_packed_fp8(target, name):
    if target.name == 'interpreted':
        pytest.skip('the interpreter has no fp8 conversion')
    dtype = torch.float8_e5m2 if name == 'fp8_e5m2' else torch.float8_e4m3fn
    key = torch.randn(5, 3, 64, device=target.device) * 300
    scale, limit = torch.tensor([2.0], device=target.device), torch.finfo(dtype).max
    key_cache, value_cache = packed(target, 2, 3, 64, 8, torch.uint8, 16)
    slots = torch.tensor([3, 12, -1, 0, 15], device=target.device)
    target.ops('cache').reshape_and_cache(key, key, key_cache, value_cache, slots, name, scale, scale)
    want = (key / 2).clamp(-limit, limit).to(dtype).view(torch.uint8)
    for t, slot in enumerate(slots.tolist()):
        if slot >= 0:
            assert torch.equal(key_cache[slot // 8, :, :, slot % 8].flatten(1), want[t])
            assert torch.equal(value_cache[slot // 8, :, :, slot % 8], want[t])


@given(
    size=st.sampled_from([(2, 16, 3), (5, 7), (1,), (4, 520)]), pairs=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 7)), max_size=9
    ), dtype=st.sampled_from([torch.float16, torch.uint8, torch.float32]), same=st.booleans(),
)
def test_swap_blocks(target, size, pairs, dtype, same):
    src = torch.randint(0, 100, (9, *size), device=target.device).to(dtype)[1:]
    dst = src if same else torch.zeros_like(src)
    want = dst.clone()
    for i, j in pairs:
        want[j] = (want if same else src)[i]
    mapping = torch.tensor(pairs, dtype=torch.int64).view(-1, 2)
    if pairs:
        target.ops('cache').swap_blocks(src, dst, src.element_size() * src.stride(0), mapping)
    assert torch.equal(dst, want)


def test_swap_blocks_between_devices(target):
    if target.name != 'cuda':
        pytest.skip('needs two devices')
    from swiftlite_kernels.cache import swap_blocks

    here, there = torch.randn(6, 4, 8), torch.zeros(6, 4, 8, device='cuda')
    mapping = torch.tensor([[0, 3], [1, 4], [5, 0]])
    swap_blocks(here.pin_memory(), there, 128, mapping)
    assert torch.equal(there.cpu()[[3, 4, 0]], here[[0, 1, 5]]) and not there[[1, 2, 5]].any()
    back = torch.zeros_like(here)
    swap_blocks(there, back, 128, mapping.flip(1))
    torch.cuda.synchronize()
    assert torch.equal(back[[0, 1, 5]], here[[0, 1, 5]])


@pytest.mark.parametrize(
    ('size', 'mapping', 'says'),
    [
        (16, [[0, 4]], 'dst has 4 blocks of 16 bytes, not block 4'),
        (16, [[6, 1], [-1, 1]], 'src has 6 blocks of 16 bytes, not block -1'),
        (0, [[0, 0]], 'at least 1'),
        (16, [[0, 0, 0]], r'int64 \[n, 2\] on the CPU'),
    ],
)
def test_swap_blocks_mistakes(size, mapping, says):
    from swiftlite_kernels.cache import swap_blocks

    with pytest.raises(ValueError, match=says):
        swap_blocks(torch.zeros(6, 4), torch.zeros(4, 4), size, torch.tensor(mapping))


def test_packed_caches_that_do_not_fit():
    from swiftlite_kernels.cache import reshape_and_cache

    x, slots, one = torch.zeros(2, 3, 24), torch.zeros(2, dtype=torch.int64), torch.ones(1)
    for keys, values in (((4, 3, 2, 8, 8), (4, 3, 24, 8)), ((4, 3, 3, 8, 8), (4, 3, 8, 24))):
        with pytest.raises(ValueError, match='do not fit keys'):
            reshape_and_cache(x, x, torch.zeros(keys), torch.zeros(values), slots, 'auto', one, one)


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
