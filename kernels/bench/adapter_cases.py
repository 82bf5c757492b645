"""The calls of an adapted layer: what the engine launches beside the products of a decoder layer."""

from collections.abc import Iterator

import torch
from cases import Case, Shape, bf16

from swiftlite_kernels import paged_lora
from swiftlite_kernels.paged_lora import LoRARouting

RANK, ADAPTERS = 16, 32


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
    pool = ADAPTERS * RANK
    heads, kv_heads = s.heads * s.dim, s.kv_heads * s.dim
    layers = {'qkv': (s.hidden, [heads, kv_heads, kv_heads]), 'o': (heads, [s.hidden]), 'down': (s.inner, [s.hidden])}
    for tokens, adapters in ((1, 1), (64, 32), (256, 1), (256, 32), (1024, 32), (8192, 32)):
        where = routing(tokens, adapters)
        size = f'r {RANK}, T={tokens}, {adapters} adapters'
        ranks = adapters * RANK
        for name, (inner, widths) in layers.items():
            x, y, a = bf16(tokens, inner), bf16(tokens, sum(widths)), bf16(len(widths), pool, inner)
            b = bf16(pool, sum(widths))

            def both(x=x, y=y, a=a, b=b, widths=widths, where=where) -> None:
                paged_lora.expand(y, paged_lora.shrink(x, a, where), b, widths, where)

            moved = x.numel() + 2 * y.numel() + ranks * (len(widths) * inner + sum(widths))
            yield Case('shrink, expand', f'{name}, {size}', [both], bytes=2 * moved)
        x, y, out = bf16(tokens, s.hidden), bf16(tokens, 2 * s.inner), bf16(tokens, s.inner)
        a, b = bf16(2, pool, s.hidden), bf16(pool, 2 * s.inner)

        def gate(x=x, y=y, out=out, a=a, b=b, where=where) -> None:
            paged_lora.expand_silu_and_mul(out, y, paged_lora.shrink(x, a, where), b, where)

        moved = x.numel() + y.numel() + out.numel() + ranks * 2 * (s.hidden + s.inner)
        yield Case('shrink, expand_silu_and_mul', f'gate and up, {size}', [gate], bytes=2 * moved)
