import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

WORD = 0xFFFFFFFF


def philox_block(counter, key, rounds=7):
    """Philox4x32 from its definition, on Python integers."""
    c, k = list(counter), list(key)
    for _ in range(rounds):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & WORD, (a >> 32) ^ c[3] ^ k[1], a & WORD]
        k = [(k[0] + 0x9E3779B9) & WORD, (k[1] + 0xBB67AE85) & WORD]
    return c


def filtered(logits, temperature, top_k, top_p, min_p):
    """Probabilities of one row in float64 after the filters, by sorting."""
    p = (logits.double() / temperature).softmax(-1)
    keep = torch.ones_like(p, dtype=torch.bool)
    if min_p > 0:
        keep &= p >= min_p * p.max()
    if 0 < top_k < p.numel():
        keep &= logits >= logits.sort(descending=True).values[top_k - 1]
    if top_p < 1:
        rest = p * keep / (p * keep).sum()
        ordered, order = logits.sort(descending=True)
        first = torch.searchsorted(-ordered, -logits)  # how many are likelier
        above = torch.cat([rest.new_zeros(1), rest[order].cumsum(0)])[first]
        keep &= (above < top_p) | (logits == logits[keep].max())
    p = p * keep
    return p / p.sum()


def columns(rows, device, temperature=None, top_k=None, top_p=None, min_p=None, seed=0, position=0):
    def column(x, dtype):
        return None if x is None else torch.as_tensor(x, dtype=dtype, device=device).expand(rows).contiguous()

    return (column(temperature, torch.float32), column(top_k, torch.int32), column(top_p, torch.float32),
            column(min_p, torch.float32), column(seed, torch.int64), column(position, torch.int64))


def test_philox_known_answers():
    """Vectors of Salmon et al.'s Random123."""
    assert philox_block((0,) * 4, (0, 0)) == [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]
    assert philox_block((0,) * 4, (0, 0), 10) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox_block((WORD,) * 4, (WORD, WORD), 10) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


def test_uniform_bits(target):
    seeds = torch.tensor([0, 1, -1, 2**40 + 5], device=target.device)
    positions = torch.tensor([0, 7, 2**33 + 1, 3], device=target.device)
    got = target.ops('sampling').philox_uniform(seeds, positions, 1003).cpu()
    assert got.shape == (4, 1003)
    for row, (seed, position) in enumerate(zip(seeds.tolist(), positions.tolist(), strict=True)):
        for token in (0, 1, 2, 3, 500, 1002):
            word = philox_block((token // 4, position & WORD, position >> 32, 0), (seed & WORD,
            (seed >> 32) & WORD))[token % 4]
            exact = torch.tensor(word, dtype=torch.float64).float().double() * 2.0**-32 + 2.0**-33
            assert got[row, token].item() == min(exact.float().item(), 1 - 2.0**-24)
    assert got.min() > 0 and got.max() < 1


def test_uniform_is_uniform(target):
    if target.name == 'interpreted':
        pytest.skip('statistics need more numbers than the interpreter makes')
    u = target.ops('sampling').philox_uniform(*[torch.arange(64, device=target.device)] * 2,
    4096).cpu().double().flatten()
    assert abs(u.mean() - 0.5) < 0.003
    counts = torch.histc(u, 64, 0, 1)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 120  # chi-square, 63 degrees


def test_greedy_takes_the_first_of_equals(target):
    logits = torch.randn(6, 5000, device=target.device)
    logits[:, 77] = logits[:, 4321] = 50.0
    assert target.ops('sampling').sample(logits, *columns(6, target.device)).tolist() == [77] * 6
    cold = columns(6, target.device, temperature=0.0, top_k=5, top_p=0.5)
    assert target.ops('sampling').sample(logits, *cold).tolist() == [77] * 6


@given(
    vocab=st.sampled_from([5, 300, 2500, 9001]), k=st.sampled_from([None, 0, 1, 7, 300]),
    p=st.sampled_from([None, 1.0, 0.9, 0.3, 0.0]), low=st.sampled_from([None, 0.0, 0.1, 1.0]),
    heat=st.sampled_from([0.3, 0.7, 1.0, 3.0]), ties=st.booleans(), seed=st.integers(0, 2**40), ordered=st.booleans(),
)
def test_is_the_argmax_of_the_kept_noisy_logits(target, vocab, k, p, low, heat, ties, seed, ordered):
    """The specification, in float64 with a sort."""
    rows = 4
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed % 1000)) * 3
    if ties:
        logits = (logits * 2).round() / 2
    if ordered:
        logits = logits.sort(-1).values
    args = columns(rows, target.device, heat, k, p, low, seed + torch.arange(rows), 5 * torch.arange(rows))
    got = target.ops('sampling').sample(logits.to(target.device), *args).tolist()
    u = target.ops('sampling').philox_uniform(args[4], args[5], vocab).cpu().double()
    for row in range(rows):
        probability = filtered(logits[row], heat, k or 0, 1.0 if p is None else p, low or 0.0)
        score = logits[row].double() / heat - torch.log(-torch.log1p(-u[row]))
        score[probability == 0] = -math.inf
        assert probability[got[row]] > 0
        assert score[got[row]] > score.max() - 1e-4


def test_mixed_rows_keep_their_own_result(target):
    """A row's token is the same alone, in another place and beside rows with other filters."""
    ops, device = target.ops('sampling'), target.device
    logits = torch.randn(5, 3000, device=device) * 2
    heat = torch.tensor([0.7, 0.0, 1.0, 1.3, 0.9], device=device)
    k = torch.tensor([0, 3, 20, 0, 400], device=device, dtype=torch.int32)
    p = torch.tensor([0.9, 1.0, 0.8, 1.0, 0.5], device=device)
    low = torch.tensor([0.0, 0.0, 0.0, 0.05, 0.0], device=device)
    seeds, positions = torch.arange(5, device=device) + 40, torch.arange(5, device=device) * 3
    together = ops.sample(logits, heat, k, p, low, seeds, positions)
    for i in range(5):
        row = slice(i, i + 1)
        alone = ops.sample(logits[row], heat[row], k[row], p[row], low[row], seeds[row], positions[row])
        assert alone.item() == together[i].item()
    order = torch.tensor([3, 0, 4, 2, 1], device=device)
    moved = ops.sample(logits[order], heat[order], k[order], p[order], low[order], seeds[order], positions[order])
    assert torch.equal(moved, together[order])


def test_padding_the_vocabulary_changes_nothing(target):
    ops, device = target.ops('sampling'), target.device
    logits = torch.randn(3, 2001, device=device)
    padded = torch.full((3, 4096), float('-inf'), device=device)
    padded[:, :2001] = logits
    args = columns(3, device, temperature=1.0, top_p=0.9, seed=3, position=torch.arange(3))
    assert torch.equal(ops.sample(logits, *args), ops.sample(padded, *args))


@pytest.mark.parametrize('k, p, low', [(None, None, None), (4, None, None), (None, 0.8, None), (6, 0.7, 0.05)])
def test_frequencies(target, k, p, low):
    """Over many seeds the tokens come as often as the filtered distribution says (chi-square)."""
    if target.name == 'interpreted':
        pytest.skip('statistics need more draws than the interpreter makes')
    logits = torch.tensor([2.0, 1.5, 1.5, 0.5, 0.0, -0.3, -1.0, -2.0])
    draws = 20000
    args = columns(draws, target.device, 0.8, k, p, low, torch.arange(draws) % 100, torch.arange(draws) // 100)
    tokens = target.ops('sampling').sample(logits.to(target.device).expand(draws, 8).contiguous(), *args).cpu()
    want = filtered(logits, 0.8, k or 0, p or 1.0, low or 0.0) * draws
    counts = torch.bincount(tokens, minlength=8).double()
    assert (counts[want == 0] == 0).all()
    assert ((counts - want)[want > 0] ** 2 / want[want > 0]).sum() < 25  # 7 degrees: p < 0.001


def test_same_tokens_on_both_devices():
    if not torch.cuda.is_available():
        pytest.skip('compares the CPU with a GPU')
    from swiftlite_kernels import sampling

    logits = torch.randn(64, 152064) * 2
    for kw in ({}, {'top_p': 0.9}, {'top_k': 20, 'top_p': 0.8}, {'min_p': 0.1}, {'top_k': 1000, 'top_p': 0.99}):
        args = columns(64, 'cpu', 0.7, seed=torch.arange(64), position=9, **kw)
        here = sampling.sample(logits, *args)
        there = sampling.sample(logits.cuda(), *[None if x is None else x.cuda() for x in args])
        assert (here == there.cpu()).float().mean() > 0.98, kw  # a mass may round to the other side of top_p


def test_needs_seeds():
    from swiftlite_kernels import sampling

    with pytest.raises(ValueError, match='needs seeds'):
        sampling.sample(torch.zeros(1, 4), torch.ones(1), None, None, None, None, None)


@given(vocab=st.sampled_from([7, 769, 4097]), dtype=st.integers(0, 2), seed=st.integers(0, 100))
def test_repetition_penalties(target, vocab, dtype, seed):
    dtype = target.dtypes[dtype % len(target.dtypes)]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, vocab, generator=generator).to(dtype).to(target.device)
    prompt, output = (torch.rand(2, 4, vocab, generator=generator) < 0.3).to(target.device)
    penalties = torch.tensor([1.0, 1.1, 2.0, 0.5], device=target.device)
    want = logits.double()
    factor = penalties.to(dtype).double()[:, None]
    seen = prompt | output
    want = torch.where(seen & (want > 0), want / factor, torch.where(seen, want * factor, want))
    target.ops('sampling').apply_repetition_penalties(logits, prompt, output, penalties)
    assert torch.allclose(logits.double(), want, rtol=1e-6 if dtype == torch.float32 else 1e-2)
    assert torch.equal(logits[0].double(), want[0])
