"""The calls of an adapted layer: what the engine launches beside the products of a decoder layer."""

from collections.abc import Iterator, Sequence

import torch
from cases import Case, Shape, bf16

from swiftlite_kernels import gemv, norm, paged_lora, rotary
from swiftlite_kernels.paged_lora import Expansion, LoRARouting

RANK, ADAPTERS = 16, 32
POOL = RANK * ADAPTERS


def routing(tokens: int, adapters: int) -> LoRARouting:
    """Even shares of the tokens, in tiles as the engine cuts them."""
    size = 8 if tokens <= 256 else 16 if tokens <= 1024 else 64
    ends = [tokens * (i + 1) // adapters for i in range(adapters)]
    runs = zip(range(adapters), [0, *ends[:-1]], ends, strict=True)
    tiles = [(i, at, min(size, end - at)) for i, first, end in runs for at in range(first, end, size)]
    columns = [torch.tensor(c, dtype=torch.int32, device='cuda') for c in zip(*tiles, strict=True)]
    rows = torch.randperm(adapters * RANK, device='cuda').int().view(adapters, RANK)
    return LoRARouting(*columns, rows, torch.full((adapters,), RANK, dtype=torch.int32, device='cuda'), size)


def paged_lora_cases(s: Shape) -> Iterator[Case]:
    heads, kv_heads = s.heads * s.dim, s.kv_heads * s.dim
    layers = {'qkv': (s.hidden, [heads, kv_heads, kv_heads]), 'o': (heads, [s.hidden]), 'down': (s.inner, [s.hidden])}
    for tokens, adapters in ((1, 1), (64, 32), (256, 1), (256, 32), (1024, 32), (8192, 32)):
        where = routing(tokens, adapters)
        size = f'r {RANK}, T={tokens}, {adapters} adapters'
        ranks = adapters * RANK
        for name, (inner, widths) in layers.items():
            x, y, a = bf16(tokens, inner), bf16(tokens, sum(widths)), bf16(len(widths), POOL, inner)
            b = bf16(POOL, sum(widths))

            def both(x=x, y=y, a=a, b=b, widths=widths, where=where) -> None:
                paged_lora.expand(y, paged_lora.shrink(x, a, where), b, widths, where)

            moved = x.numel() + 2 * y.numel() + ranks * (len(widths) * inner + sum(widths))
            yield Case('shrink, expand', f'{name}, {size}', [both], bytes=2 * moved)
        x, y, out = bf16(tokens, s.hidden), bf16(tokens, 2 * s.inner), bf16(tokens, s.inner)
        a, b = bf16(2, POOL, s.hidden), bf16(POOL, 2 * s.inner)

        def gate(x=x, y=y, out=out, a=a, b=b, where=where) -> None:
            paged_lora.expand_silu_and_mul(out, y, paged_lora.shrink(x, a, where), b, where)

        moved = x.numel() + y.numel() + out.numel() + ranks * 2 * (s.hidden + s.inner)
        yield Case('shrink, expand_silu_and_mul', f'gate and up, {size}', [gate], bytes=2 * moved)
    yield from joined_cases(s)
    yield from row_cases(s)


def ready(
    x: torch.Tensor, widths: Sequence[int], where: LoRARouting, norm_weight: torch.Tensor | None = None
) -> Expansion:
    """What is to be added for x, with a pool of its own."""
    a, b = bf16(len(widths), POOL, x.shape[1]), bf16(POOL, sum(widths))
    return Expansion(paged_lora.shrink(x, a, where, norm_weight), b, widths, where)


def joined_cases(s: Shape) -> Iterator[Case]:
    """Expansions as part of the kernel that reads the output next, which is in the time."""
    kv = s.kv_heads * s.dim
    widths = [s.heads * s.dim, kv, kv]
    one, table = torch.ones(1, device='cuda'), torch.rand(4096, s.dim, device='cuda')
    for tokens, adapters in ((64, 32), (256, 1), (256, 32)):
        where, size = routing(tokens, adapters), f'r {RANK}, T={tokens}, {adapters} adapters'
        x, y, weight = bf16(tokens, s.hidden), bf16(tokens, sum(widths)), bf16(s.hidden)
        positions = torch.arange(tokens, device='cuda')
        keys, values = torch.zeros(2, tokens // 16, 16, s.kv_heads, s.dim, device='cuda', dtype=torch.bfloat16)
        lora = ready(x, widths, where)

        def turn(y=y, positions=positions, keys=keys, values=values, lora=lora) -> None:
            rotary.rotary_and_cache(
                y, None, None, None, 1e-6, positions, s.dim, table, True, keys, values, positions, 'auto', one, one,
                lora,
            )

        moved = 2 * y.numel() + adapters * RANK * sum(widths)
        yield Case('rotary_and_cache with adapters', size, [turn], bytes=2 * moved)
        residual, lora = bf16(tokens, s.hidden), ready(x, [s.hidden], where)

        def add(x=x, residual=residual, weight=weight, lora=lora) -> None:
            norm.fused_add_rms_norm(x, residual, weight, 1e-6, lora)

        moved = 4 * x.numel() + adapters * RANK * s.hidden
        yield Case('fused_add_rms_norm with adapters', size, [add], bytes=2 * moved)


def row_cases(s: Shape) -> Iterator[Case]:
    """A single token: first half and product, which work beside each other."""
    kv, where = s.kv_heads * s.dim, routing(1, 1)
    layers = {
        'norm + qkv': (s.hidden, [s.heads * s.dim, kv, kv]), 'o + residual': (s.heads * s.dim, [s.hidden]),
        'norm + gate_up + silu': (s.hidden, [s.inner] * 2), 'down + residual': (s.inner, [s.hidden]),
    }
    for name, (inner, widths) in layers.items():
        width, gated = sum(widths), 'gate' in name
        weights = [bf16(width, inner) for _ in range(4)]
        x, out = bf16(1, inner), bf16(1, width // 2 if gated else width)
        gain = bf16(inner) if 'norm' in name else None
        residual = bf16(1, width) if 'residual' in name else None
        a, b = bf16(len(widths), POOL, inner), bf16(POOL, width)

        def run(w, x=x, out=out, gain=gain, residual=residual, a=a, b=b, widths=widths, gated=gated) -> None:
            lora = Expansion(paged_lora.shrink(x, a, where, gain), b, widths, where)
            gemv.gemv(out, x, w, None, residual, gain, 1e-6, gated, lora)

        calls = [lambda w=w, run=run: run(w) for w in weights]
        moved = width * inner + RANK * (width + len(widths) * inner)
        yield Case('shrink, gemv', f'{name}, r {RANK}', calls, bytes=2 * moved)
