"""The calls that ops.py times: every op at the sizes of two models, with its least work and its error."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from swiftlite_kernels import activation, attention, cache, gemv, lora, norm, rotary, sampling

Call = Callable[[], object]


@dataclass(frozen=True)
class Shape:
    """What a decoder layer of a model asks of the kernels."""

    name: str
    hidden: int
    heads: int
    kv_heads: int
    dim: int
    inner: int
    vocab: int


SHAPES = [
    Shape('qwen2.5-7b', 3584, 28, 4, 128, 18944, 152064),
    Shape('qwen2.5-0.5b', 896, 14, 2, 64, 4864, 151936),
]


@dataclass(frozen=True)
class Case:
    """One timed call. bytes or flops: the least it must move or do; check: its error against float64."""

    op: str
    size: str
    calls: list[Call]
    bytes: float = 0.0
    flops: float = 0.0
    plain: Call | None = None
    check: Callable[[], float] | None = None


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


def several(make: Callable[[], torch.Tensor], room: float = 4e8) -> list[torch.Tensor]:
    """Buffers that together do not fit in the cache, two to eight."""
    first = make()
    count = max(2, min(8, int(room // (first.numel() * first.element_size()))))
    return [first] + [make() for _ in range(count - 1)]


def bf16(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, device='cuda', dtype=torch.bfloat16)


def norm_cases(s: Shape) -> Iterator[Case]:
    weight = bf16(s.hidden)
    for tokens in (1, 64, 256, 8192):
        xs = several(lambda tokens=tokens: bf16(tokens, s.hidden))
        rs, out = [torch.randn_like(x) for x in xs], torch.empty_like(xs[0])

        def run(x, out=out):
            norm.rms_norm(out, x, weight, 1e-6)

        def check(x=xs[0], out=out, run=run):
            run(x)
            wide = x.double()
            return error(out, wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double())

        yield Case('rms_norm', f'T={tokens}', [partial(run, x) for x in xs], bytes=tokens * s.hidden * 4, check=check,
                   plain=lambda x=xs[0]: F.rms_norm(x, (s.hidden,), weight, 1e-6))
        yield Case('fused_add_rms_norm', f'T={tokens}',
                   [lambda x=x, r=r: norm.fused_add_rms_norm(x, r, weight, 1e-6) for x, r in zip(xs, rs, strict=True)],
                   bytes=tokens * s.hidden * 8,
                   plain=lambda x=xs[0], r=rs[0]: F.rms_norm(x + r, (s.hidden,), weight, 1e-6))


def gemv_cases(s: Shape) -> Iterator[Case]:
    layers = {
        'norm + qkv': ((s.heads + 2 * s.kv_heads) * s.dim, s.hidden), 'o + residual': (s.hidden, s.heads * s.dim),
        'norm + gate_up + silu': (2 * s.inner, s.hidden), 'down + residual': (s.hidden, s.inner),
        'norm + lm_head': (s.vocab, s.hidden),
    }
    for name, (width, inner) in layers.items():
        gated = 'gate' in name
        weights = several(lambda n=width, k=inner: bf16(n, k) * 0.02, 1e9)
        x, out = bf16(1, inner), bf16(1, width // 2 if gated else width)
        gain = bf16(inner) if 'norm' in name else None
        residual = bf16(1, width) if 'residual' in name else None

        def run(w, x=x, out=out, gain=gain, residual=residual, gated=gated):
            gemv.gemv(out, x, w, None, residual, gain, 1e-6, gated)

        def separate(w, x=x, out=out, gain=gain, residual=residual, gated=gated):
            y = x if gain is None else F.rms_norm(x, x.shape[1:], gain, 1e-6)
            y = y @ w.T
            if gated:
                y = F.silu(y[:, : out.shape[1]]) * y[:, out.shape[1] :]
            return y if residual is None else y + residual

        def check(w=weights[0], run=run, separate=separate, out=out, x=x, gain=gain, residual=residual):
            run(w)
            wide = [None if t is None else t.double() for t in (gain, residual)]
            return error(out, separate(w.double(), x.double(), out, *wide))

        yield Case('gemv', name, [partial(run, w) for w in weights], bytes=width * inner * 2, check=check)
        yield Case('torch, the same', name, [partial(separate, w) for w in weights], bytes=width * inner * 2)


def activation_cases(s: Shape) -> Iterator[Case]:
    for tokens in (1, 64, 256, 8192):
        xs = several(lambda tokens=tokens: bf16(tokens, 2 * s.inner))
        out = torch.empty(tokens, s.inner, device='cuda', dtype=torch.bfloat16)

        def check(x=xs[0], out=out):
            activation.silu_and_mul(out, x)
            gate, up = x.double().chunk(2, -1)
            return error(out, F.silu(gate) * up)

        yield Case('silu_and_mul', f'T={tokens}', [partial(activation.silu_and_mul, out, x) for x in xs],
                   bytes=tokens * s.inner * 6, check=check,
                   plain=lambda x=xs[0]: F.silu(x[:, : s.inner]) * x[:, s.inner :])


def rotary_and_cache_cases(s: Shape) -> Iterator[Case]:
    width, q_width, kv_width = (s.heads + 2 * s.kv_heads) * s.dim, s.heads * s.dim, s.kv_heads * s.dim
    angles = torch.rand(4096, s.dim // 2, device='cuda', dtype=torch.float64) * 6.28
    table = torch.cat([angles.cos(), angles.sin()], -1).float()
    one = torch.ones(1, device='cuda')
    for tokens in (1, 64, 256, 8192):
        rows = several(lambda tokens=tokens: bf16(tokens, width))
        positions = torch.randint(0, 4096, (tokens,), device='cuda')

        def turn(x, positions=positions):
            rotary.rotary_embedding(positions, x[:, :q_width], x[:, q_width : q_width + kv_width], s.dim, table, True)

        def check(x=rows[0], positions=positions, turn=turn):
            x = x.clone()
            heads = x[:, :q_width].reshape(-1, s.heads, s.dim).double()
            cos, sin = angles[positions].cos()[:, None], angles[positions].sin()[:, None]
            a, b = heads.chunk(2, -1)
            turn(x)
            return error(x[:, :q_width].reshape(-1, s.heads, s.dim), torch.cat([a * cos - b * sin, b * cos + a * sin],
            -1))

        yield Case('rotary_embedding', f'T={tokens}', [partial(turn, x) for x in rows],
                   bytes=tokens * (q_width + kv_width) * 4, check=check)
        blocks = torch.zeros(2 * max(tokens, 16) // 16, 2, 16, s.kv_heads, s.dim, device='cuda', dtype=torch.bfloat16)
        slots = torch.randperm(blocks.shape[0] * 16, device='cuda')[:tokens]

        def write(x, blocks=blocks, slots=slots):
            key = x[:, q_width : q_width + kv_width].view(-1, s.kv_heads, s.dim)
            value = x[:, q_width + kv_width :].view(-1, s.kv_heads, s.dim)
            cache.reshape_and_cache_flash(key, value, blocks[:, 0], blocks[:, 1], slots, 'auto', one, one)

        yield Case('reshape_and_cache_flash', f'T={tokens}', [partial(write, x) for x in rows],
        bytes=tokens * kv_width * 8)

        def both(x, positions=positions, blocks=blocks, slots=slots):
            rotary.rotary_and_cache(x, None, None, None, 1e-6, positions, s.dim, table, True, blocks[:, 0], blocks[:,
            1],
                                    slots, 'auto', one, one)

        yield Case('rotary_and_cache', f'T={tokens}', [partial(both, x) for x in rows], bytes=tokens * width * 4)


class Batch:
    """A paged cache with shuffled blocks and a batch that attends to it."""

    def __init__(self, s: Shape, queries: list[int], lengths: list[int], block_size: int = 16, copies: int = 1):
        needed = [-(-n // block_size) for n in lengths]
        order = torch.randperm(sum(needed)).split(needed)
        table = torch.zeros(len(lengths), max(needed), dtype=torch.int32)
        for row, blocks in zip(table, order, strict=True):
            row[: len(blocks)] = blocks
        self.table, self.scale = table.cuda(), s.dim**-0.5
        self.caches = [bf16(sum(needed), 2, block_size, s.kv_heads, s.dim) for _ in range(copies)]
        self.q = bf16(sum(queries), s.heads, s.dim)
        self.out = torch.empty_like(self.q)
        self.starts = torch.tensor([0, *queries]).cumsum(0).int().cuda()
        self.lengths = torch.tensor(lengths, dtype=torch.int32).cuda()
        self.longest = max(queries), max(lengths)

    def attend(self, i: int = 0) -> None:
        attention.unified_attention(
            self.q, self.caches[i][:, 0], self.caches[i][:, 1], self.out, self.starts, self.longest[0], self.lengths,
            self.longest[1], self.scale, True, (-1, -1), self.table, 0.0, None, None, None,
        )

    def error(self) -> float:
        """Against float64, for the first and the last sequence."""
        self.attend()
        stored = self.caches[0].to(torch.bfloat16)  # an fp8 cache cannot be indexed
        found = []
        for i in (0, len(self.lengths) - 1):
            first, last, length = int(self.starts[i]), int(self.starts[i + 1]), int(self.lengths[i])
            first = max(first, last - 64)
            blocks = stored[self.table[i].long()].double()
            k, v = (blocks[:, j].flatten(0, 1)[:length].transpose(0, 1) for j in (0, 1))
            group = self.q.shape[1] // k.shape[0]
            k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
            scores = self.q[first:last].double().transpose(0, 1) @ k.transpose(1, 2) * self.scale
            places = torch.arange(length, device='cuda')
            scores.masked_fill_(places > places[length - (last - first) :, None], float('-inf'))
            found.append(error(self.out[first:last], (scores.softmax(-1) @ v).transpose(0, 1)))
        return max(found)


def attention_cases(s: Shape) -> Iterator[Case]:
    rng = random.Random(0)
    uneven = [rng.randint(200, 1500) for _ in range(256)]
    decodes = {'1 x 128': [128], '1 x 1024': [1024], '1 x 4096': [4096], '8 x 1024': [1024] * 8, '64 x 512': [512] * 64,
               '64 x 200-1500': uneven[:64], '256 x 200-1500': uneven, '63 x 600, 1 x 16000': [600] * 63 + [16000]}
    for name, lengths in decodes.items():
        moved = sum(lengths) * s.kv_heads * s.dim * 4
        batch = Batch(s, [1] * len(lengths), lengths, copies=max(1, min(16, int(4e8 // moved))))
        yield Case('unified_attention, decode', name, [lambda b=batch,
        i=i: b.attend(i) for i in range(len(batch.caches))],
                   bytes=moved, check=batch.error)
    for block_size in (32, 64):
        batch = Batch(s, [1] * 64, uneven[:64], block_size, 4)
        yield Case('unified_attention, decode', f'64 x 200-1500, blocks of {block_size}',
                   [partial(batch.attend, i) for i in range(4)],
                   bytes=sum(uneven[:64]) * s.kv_heads * s.dim * 4, check=batch.error)
    prompts = {'1 x 2048': ([2048], [2048]), '4 x 2048': ([2048] * 4, [2048] * 4), '32 x 256': ([256] * 32, [256] * 32),
               '2048 after 6144': ([2048], [8192])}
    for name, (queries, lengths) in prompts.items():
        batch = Batch(s, queries, lengths)
        seen = sum(n * (m - n) + n * (n + 1) / 2 for n, m in zip(queries, lengths, strict=True))
        plain = None
        if queries == lengths:
            n, m = len(queries), queries[0]
            q = batch.q.view(n, m, s.heads, s.dim).transpose(1, 2)
            k, v = (bf16(n, m, s.kv_heads, s.dim).transpose(1, 2) for _ in range(2))

            def plain(q=q, k=k, v=v):
                with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

        yield Case('unified_attention, prompts', name, [batch.attend], flops=4 * s.heads * s.dim * seen, plain=plain,
                   check=batch.error)
    batch = Batch(s, [*[1] * 63, 1024], [*uneven[:63], 1024])
    yield Case('unified_attention, mixed', '63 x 200-1500 and 1024 new', [batch.attend], check=batch.error)


def sampling_cases(s: Shape) -> Iterator[Case]:
    for rows in (1, 64, 256):
        logits = several(lambda rows=rows: torch.randn(rows, s.vocab, device='cuda') * 2, 1e9)
        heat = torch.full((rows,), 0.7, device='cuda')
        seeds = torch.arange(rows, device='cuda')

        def column(value, dtype=torch.float32, rows=rows):
            return torch.full((rows,), value, device='cuda', dtype=dtype)

        filters = {
            'greedy': (None, None, None, None, None, None),
            'T 0.7': (heat, None, None, None, seeds, seeds),
            'T 0.7, top_p 0.9': (heat, None, column(0.9), None, seeds, seeds),
            'T 0.7, top_k 20, top_p 0.8': (heat, column(20, torch.int32), column(0.8), None, seeds, seeds),
            'T 0.7, min_p 0.05': (heat, None, None, column(0.05), seeds, seeds),
            'T 0.7, top_k 1000': (heat, column(1000, torch.int32), None, None, seeds, seeds),
        }
        for name, args in filters.items():
            plain = None
            if name == 'greedy':
                plain = lambda x=logits[0]: x.argmax(-1)  # noqa: E731
            elif name == 'T 0.7, top_p 0.9':
                plain = lambda x=logits[0]: sorted_top_p(x, 0.7, 0.9)  # noqa: E731
            yield Case('sample', f'{rows} rows, {name}', [lambda x=x, args=args: sampling.sample(x,
            *args) for x in logits],
                       bytes=rows * s.vocab * 4, plain=plain)
        mask = torch.rand(rows, s.vocab, device='cuda') < 0.01
        penalties = column(1.1)
        yield Case('apply_repetition_penalties', f'{rows} rows',
                   [partial(sampling.apply_repetition_penalties, x, mask, mask, penalties) for x in logits],
                   bytes=rows * s.vocab * 2)


def sorted_top_p(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The usual way: sort, cut, draw."""
    ordered, ids = (logits / temperature).sort(-1, descending=True)
    p = ordered.softmax(-1)
    p = p.masked_fill(p.cumsum(-1) - p > top_p, 0)
    return ids.gather(1, (p / torch.empty_like(p).exponential_()).argmax(-1, keepdim=True))


def lora_cases(s: Shape) -> Iterator[Case]:
    rank, adapters = 16, 32
    widths = (s.heads * s.dim, s.kv_heads * s.dim, s.kv_heads * s.dim)
    a = [bf16(adapters, rank, s.hidden) for _ in widths]
    b = [bf16(adapters, n, rank) for n in widths]
    for tokens in (1, 64, 256, 4096):
        x, out = bf16(tokens, s.hidden), bf16(tokens, sum(widths))
        middle = torch.empty(3, tokens, rank, device='cuda')
        mapping = torch.arange(tokens) % adapters
        present, counts = mapping.unique(return_counts=True)
        ids, number, starts = torch.full((adapters + 1,), -1), torch.zeros(adapters + 1), torch.zeros(adapters + 2)
        ids[: len(present)], number[: len(present)] = present, counts.float()
        starts[1 : len(present) + 1] = counts.cumsum(0)
        routing = [t.int().cuda() for t in (mapping, mapping.argsort(stable=True), number, starts, ids)]
        routing += [torch.tensor([False]), torch.tensor([adapters + 1], dtype=torch.int32)]
        used = len(present)
        yield Case('lora_shrink', f'qkv, r {rank}, T={tokens}, {used} adapters',
                   [partial(lora.lora_shrink, x, a, middle, *routing, 1.0)],
                   bytes=tokens * s.hidden * 2 + used * 3 * rank * s.hidden * 2)
        yield Case('lora_expand', f'qkv, r {rank}, T={tokens}, {used} adapters',
                   [partial(lora.lora_expand, middle, b, out, *routing, 0, True)],
                   bytes=tokens * sum(widths) * 4 + used * rank * sum(widths) * 2)


FAMILIES: dict[str, Callable[[Shape], Iterator[Case]]] = {
    'norm': norm_cases, 'gemv': gemv_cases, 'activation': activation_cases, 'rotary': rotary_and_cache_cases,
    'attention': attention_cases,
    'sampling': sampling_cases, 'lora': lora_cases,
}
