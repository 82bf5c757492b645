"""What only a GPU shows: captured launches, and kernels that start before the previous one has ended."""

import pytest
import torch

from tests.kernels.test_attention import make_batch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')


def capture(call):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


@pytest.mark.parametrize('queries', [[1, 1, 1, 1], [1, 40, 1, 7]])
def test_one_captured_attention_serves_other_lengths(queries):
    """Same shapes, other lengths and other splits of the tokens: the bits of an eager call."""
    from swiftlite_kernels.attention import unified_attention

    q, k, v, starts, lengths, table = make_batch(queries, [700, 9, 300, 50], 14, 2, 64, 16, torch.float16, 'cuda')
    k, v = k.nan_to_num(), v.nan_to_num()
    starts, lengths = torch.tensor(starts, dtype=torch.int32).cuda(), torch.tensor(lengths, dtype=torch.int32).cuda()
    captured, eager = torch.zeros_like(q), torch.zeros_like(q)

    def attend(out):
        longest = 48 if max(queries) > 1 else 1
        unified_attention(
            q, k, v, out, starts, longest, lengths, 710, 0.125, True, (-1, -1), table, 0.0, None, None, None
        )

    graph = capture(lambda: attend(captured))
    other = [1, 1, 1, 0] if max(queries) == 1 else [30, 1, 17, 1]
    lengths.copy_(torch.tensor([31, 620, 17, 0 if max(queries) == 1 else 333]))
    starts.copy_(torch.tensor([0, *other]).cumsum(0))
    captured.zero_()
    graph.replay()
    attend(eager)
    assert torch.equal(captured, eager)
    assert captured[: sum(other)].abs().sum(-1).min() > 0


def test_captured_sampling_reads_its_parameters():
    from swiftlite_kernels.sampling import sample

    logits = torch.randn(8, 5000, device='cuda') * 3
    args = [torch.full((8,), x, device='cuda') for x in (0.7, 0, 1.0, 0.0)]
    args[1] = args[1].int()
    seeds = torch.arange(8, device='cuda')
    tokens = torch.empty(8, dtype=torch.int64, device='cuda')
    graph = capture(lambda: tokens.copy_(sample(logits, *args, seeds, seeds)))
    for heat, k, p, low in ((0.0, 0, 1.0, 0.0), (1.3, 5, 0.9, 0.0), (0.8, 0, 0.6, 0.0), (1.0, 700, 0.9, 0.02)):
        for tensor, value in zip(args, (heat, k, p, low), strict=True):
            tensor.fill_(value)
        graph.replay()
        assert torch.equal(tokens, sample(logits, *args, seeds, seeds))


def test_captured_adapters_follow_the_routing():
    from swiftlite_kernels.lora import lora_expand, lora_shrink
    from tests.kernels.test_lora import routing

    x, a, b = (torch.randn(*shape, device='cuda') for shape in ((6, 64), (3, 8, 64), (3, 40, 8)))
    args = routing([0, 0, 1, -1, 2, 2], 3, 'cuda')
    middle, out = torch.zeros(1, 6, 8, device='cuda'), torch.zeros(6, 40, device='cuda')

    def both():
        lora_shrink(x, [a], middle, *args, 0.5)
        lora_expand(middle, [b], out, *args, 0, True)

    graph = capture(both)
    mapping = [2, -1, 1, 1, 0, 1]
    for captured, new in zip(args[:5], routing(mapping, 3, 'cuda')[:5], strict=True):
        captured.copy_(new)
    out.zero_()
    graph.replay()
    for row, token, adapter in zip(out, x, mapping, strict=True):
        want = 0.5 * b[adapter].double() @ (a[adapter].double() @ token.double()) if adapter >= 0 else row.double() * 0
        assert (row - want).abs().max() < 1e-4


def test_kernels_in_a_row_wait_for_each_other():
    """A chain in which each kernel needs the previous one's result, with and without pauses in between."""
    from swiftlite_kernels.activation import silu_and_mul
    from swiftlite_kernels.gemv import gemv
    from swiftlite_kernels.norm import fused_add_rms_norm, rms_norm

    hidden, inner, layers = 512, 2048, 12
    weights = [(torch.randn(2 * inner, hidden, device='cuda') / 30, torch.randn(hidden, inner, device='cuda') / 60)
               for _ in range(layers)]
    start = torch.randn(1, hidden, device='cuda')

    def chain(pause):
        x, residual = start.clone(), start.clone()
        wide, act = torch.empty(1, 2 * inner, device='cuda'), torch.empty(1, inner, device='cuda')
        for up, down in weights:
            for step in (
                lambda: fused_add_rms_norm(x, residual, None, 1e-6),
                lambda up=up: gemv(wide, x, up),
                lambda: silu_and_mul(act, wide),
                lambda down=down: gemv(x, act, down),
                lambda: rms_norm(x, x, None, 1e-6),
            ):
                step()
                if pause:
                    torch.cuda.synchronize()
        return x

    want = chain(True)
    out = torch.empty_like(want)
    graph = capture(lambda: out.copy_(chain(False)))
    for _ in range(50):
        out.zero_()
        graph.replay()
        assert torch.equal(out, want)
        assert torch.equal(chain(False), want)
