"""More calls that ops.py times: ops that the engine does not run, for those who come from vLLM, and fp8 caches."""

import random
from collections.abc import Callable, Iterator
from functools import partial

import torch
from cases import Batch, Call, Case, Shape, bf16, error, several

from swiftlite_kernels import cache, paged_attention, prefix_prefill, quant, triton_prefill_attention

FP8 = torch.float8_e4m3fn


def quant_cases(s: Shape) -> Iterator[Case]:
    scale = torch.ones(1, device='cuda')
    kinds = {'static': {'scale': scale}, 'dynamic': {}, 'dynamic, a row': {'use_per_token_if_dynamic': True}}
    for tokens in (1, 64, 256, 8192):
        xs = several(lambda tokens=tokens: bf16(tokens, s.hidden))
        out = torch.empty_like(xs[0], dtype=FP8)
        for name, kw in kinds.items():

            def run(x, out=out, kw=kw):
                return quant.scaled_fp8_quant(x, output=out, **kw)

            def check(x=xs[0], run=run):
                got, by = run(x)
                exact = (x.double() / by).clamp(-448, 448).to(FP8).double()
                return error(got.double() * by, exact * by)

            yield Case('scaled_fp8_quant', f'T={tokens}, {name}', [partial(run, x) for x in xs],
                       bytes=tokens * s.hidden * 3, check=check)


def cache_cases(s: Shape) -> Iterator[Case]:
    width, one = s.kv_heads * s.dim, torch.ones(1, device='cuda')
    for tokens in (1, 64, 256, 8192):
        rows = several(lambda tokens=tokens: bf16(tokens, 2, s.kv_heads, s.dim))
        blocks = 2 * max(tokens, 16) // 16
        keys, values = bf16(blocks, s.kv_heads, s.dim // 8, 16, 8), bf16(blocks, s.kv_heads, s.dim, 16)
        slots = torch.randperm(blocks * 16, device='cuda')[:tokens]
        yield Case('reshape_and_cache', f'T={tokens}',
                   [partial(cache.reshape_and_cache, x[:, 0], x[:, 1], keys, values, slots, 'auto', one, one)
                    for x in rows], bytes=tokens * width * 8)
    for count in (16, 1024):
        src, dst = bf16(2 * count, 16, width), bf16(2 * count, 16, width)
        mapping = torch.stack([torch.randperm(2 * count)[:count] for _ in range(2)], 1).pin_memory()
        size = src.stride(0) * 2
        yield Case('swap_blocks', f'{count} blocks of {size} bytes',
                   [partial(cache.swap_blocks, src, dst, size, mapping)], bytes=count * size * 2)


class PackedBatch(Batch):
    """The batch over caches of the packed layout, by any of the ops that read them."""

    def __init__(self, s: Shape, queries: list[int], lengths: list[int], op: str, copies: int = 1):
        super().__init__(s, queries, lengths, copies=copies)
        self.op, self.kv_heads, self.one = op, s.kv_heads, torch.ones(1, device='cuda')
        self.packed = [
            (c[:, 0].unflatten(-1, (-1, 8)).permute(0, 2, 3, 1, 4).contiguous(),
             c[:, 1].permute(0, 2, 3, 1).contiguous())
            for c in self.caches
        ]
        rows, heads, dim = self.q.shape
        parts = -(-self.longest[1] // 512)
        self.parts = torch.empty(2, rows, heads, parts, device='cuda') if op == 'v2' else None
        self.tmp = bf16(rows, heads, parts, dim) if op == 'v2' else None
        self.logits = torch.empty(rows, heads, 8, dim + 1, device='cuda') if op == 'pages' else None
        self.lse = torch.empty(rows, heads, device='cuda')
        if op in ('context', 'alone'):
            found = []
            for i, (n, count) in enumerate(zip(lengths, queries, strict=True)):
                blocks = self.caches[0][self.table[i, : -(-n // 16)].long()]
                found.append(blocks.transpose(1, 2).flatten(0, 1)[n - count : n])
            new = torch.cat(found)
            self.k, self.v = new[:, 0].contiguous(), new[:, 1].contiguous()

    def attend(self, i: int = 0) -> None:
        keys, values = self.packed[i]
        rest = (self.q, keys, values, self.kv_heads, self.scale, self.table, self.lengths, 16, self.longest[1], None,
                'auto', self.one, self.one)
        if self.op == 'v1':
            paged_attention.paged_attention_v1(self.out, *rest)
        elif self.op == 'v2':
            paged_attention.paged_attention_v2(self.out, self.parts[0], self.parts[1], self.tmp, *rest)
        elif self.op == 'pages':
            paged_attention.decode_attention_fwd(
                self.q, self.caches[i][:, 0], self.caches[i][:, 1], self.out, self.lse, self.table, self.lengths,
                self.logits, 8, self.scale, 16,
            )
        elif self.op == 'context':
            prefix_prefill.context_attention_fwd(
                self.q, self.k, self.v, self.out, 'auto', keys, values, self.table, self.starts, self.lengths,
                self.longest[1], self.longest[0], self.one, self.one, sm_scale=self.scale,
            )
        else:
            triton_prefill_attention.context_attention_fwd(
                self.q, self.k, self.v, self.out, self.starts, self.lengths, self.longest[0], True, self.scale
            )


class Fp8Batch(Batch):
    """The batch over an fp8 cache; its error is against what the cache holds."""

    def __init__(self, s: Shape, queries: list[int], lengths: list[int], copies: int = 1):
        super().__init__(s, queries, lengths, copies=copies)
        self.caches = [c.to(FP8) for c in self.caches]


def paged_cases(s: Shape) -> Iterator[Case]:
    rng = random.Random(0)
    uneven = [rng.randint(200, 1500) for _ in range(256)]
    decodes = {'8 x 1024': [1024] * 8, '64 x 200-1500': uneven[:64], '256 x 200-1500': uneven}
    ops = {'v1': 'paged_attention_v1', 'v2': 'paged_attention_v2', 'pages': 'decode_attention_fwd'}
    for name, lengths in decodes.items():
        moved = sum(lengths) * s.kv_heads * s.dim * 4
        copies = max(1, min(8, int(4e8 // moved)))
        for op, title in ops.items():
            batch = PackedBatch(s, [1] * len(lengths), lengths, op, copies)
            yield Case(title, name, calls(batch), bytes=moved, check=batch.error)
        fp8 = Fp8Batch(s, [1] * len(lengths), lengths, copies)
        yield Case('unified_attention, fp8 cache', name, calls(fp8), bytes=moved / 2, check=fp8.error)
    prompts = {'4 x 2048': ([2048] * 4, [2048] * 4), '2048 after 6144': ([2048], [8192])}
    for name, (queries, lengths) in prompts.items():
        seen = sum(n * (m - n) + n * (n + 1) / 2 for n, m in zip(queries, lengths, strict=True))
        flops = 4 * s.heads * s.dim * seen
        batch = PackedBatch(s, queries, lengths, 'context')
        yield Case('prefix_prefill', name, [batch.attend], flops=flops, check=batch.error)
        if queries == lengths:
            batch = PackedBatch(s, queries, lengths, 'alone')
            yield Case('triton_prefill_attention', name, [batch.attend], flops=flops, check=batch.error)
        fp8 = Fp8Batch(s, queries, lengths)
        yield Case('unified_attention, fp8 cache', name, [fp8.attend], flops=flops, check=fp8.error)


def calls(batch: Batch) -> list[Call]:
    return [partial(batch.attend, i) for i in range(len(batch.caches))]


CONTRACT: dict[str, Callable[[Shape], Iterator[Case]]] = {
    'quant': quant_cases, 'cache': cache_cases, 'paged': paged_cases,
}
