"""Calls of training that ops.py times: forward and backward ops at 8192 tokens, and a LoRA's narrow products."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from cases import Case, Shape, bf16, error, several

from swiftlite_kernels import cross_entropy, lora_dropout, residual_norm, rope, swiglu
from swiftlite_kernels.swiglu import LowRank

TOKENS = 8192
LOGIT_ROWS = 1024  # of a chunk of the loss
RANK = 8


def exact(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor], slope: torch.Tensor) -> list[torch.Tensor]:
    """Gradients of the inputs in float64."""
    leaves = [x.double().requires_grad_() for x in inputs]
    return list(torch.autograd.grad(function(*leaves), leaves, slope.double()))


def residual_norm_cases(s: Shape) -> Iterator[Case]:
    weight, size = bf16(s.hidden), TOKENS * s.hidden * 2
    xs = several(lambda: bf16(TOKENS, s.hidden))
    other, slope = bf16(TOKENS, s.hidden), bf16(TOKENS, s.hidden)
    out, total, grad = (torch.empty_like(xs[0]) for _ in range(3))
    trained = torch.empty(s.hidden, device='cuda')

    def add(x):
        residual_norm.add_rms_norm(out, total, x, other, weight, 1e-6)

    def backward(x, into=None):
        residual_norm.rms_norm_backward(grad, into, slope, other, x, weight, 1e-6)

    def formula(x, w):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w

    def check_add(x=xs[0]):
        add(x)
        return error(out, formula(total.double(), weight.double()))

    def check_backward(x=xs[0]):
        backward(x, trained)
        of_x, of_w = exact(formula, [x, weight], slope)
        return max(error(grad, of_x + other.double()), error(trained, of_w))

    yield Case(
        'add_rms_norm',
        f'T={TOKENS}',
        [partial(add, x) for x in xs],
        bytes=4 * size,
        check=check_add,
        plain=lambda x=xs[0]: F.rms_norm(x + other, (s.hidden,), weight, 1e-6),
    )
    yield Case('rms_norm_backward', 'frozen weight', [partial(backward, x) for x in xs], bytes=4 * size)
    yield Case(
        'rms_norm_backward',
        'trained weight',
        [partial(backward, x, trained) for x in xs],
        bytes=4 * size,
        check=check_backward,
    )


def rope_cases(s: Shape) -> Iterator[Case]:
    angle = torch.randn(1, TOKENS, s.dim // 2, device='cuda').repeat(1, 1, 2)
    cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()
    keys = bf16(1, TOKENS, s.kv_heads, s.dim)
    queries = several(lambda: bf16(1, TOKENS, s.heads, s.dim))
    outs = torch.empty_like(queries[0]), torch.empty_like(keys)

    def run(q):
        rope.rotate_query_key(*outs, q, keys, cos, sin)

    def check(q=queries[0]):
        run(q)
        wide, half = q.double(), s.dim // 2
        turned = torch.cat([-wide[..., half:], wide[..., :half]], -1)
        return error(outs[0], wide * cos.double()[:, :, None] + turned * sin.double()[:, :, None])

    yield Case(
        'rotate_query_key',
        f'T={TOKENS}',
        [partial(run, q) for q in queries],
        bytes=4 * (queries[0].numel() + keys.numel()),
        check=check,
    )


def swiglu_cases(s: Shape) -> Iterator[Case]:
    size = TOKENS * s.inner * 2
    gates = several(lambda: bf16(TOKENS, s.inner))
    up, slope = bf16(TOKENS, s.inner), bf16(TOKENS, s.inner)
    out = torch.empty_like(up)

    def check():
        gate, other, third = gates[0].clone(), up.clone(), slope.clone()
        swiglu.swiglu_backward(gate, other, third)
        of_gate, of_up = exact(lambda g, u: F.silu(g) * u, [gates[0], up], slope)
        return max(error(gate, of_gate), error(other, of_up))

    yield Case(
        'swiglu',
        f'T={TOKENS}',
        [partial(swiglu.swiglu, out, gate, up) for gate in gates],
        bytes=3 * size,
        plain=lambda: F.silu(gates[0]) * up,
    )
    copies = [(gate.clone(), up.clone(), slope.clone()) for gate in gates[:2]]
    # run over and over in place: the values fade, the traffic does not
    yield Case(
        'swiglu_backward',
        f'T={TOKENS}',
        [partial(swiglu.swiglu_backward, *copy) for copy in copies],
        bytes=6 * size,
        check=check,
    )
    a = LowRank(bf16(TOKENS, RANK), bf16(s.inner, RANK), 0.5)
    yield Case('swiglu', 'with a LoRA', [partial(swiglu.swiglu, out, gate, up, a, a) for gate in gates], bytes=3 * size)
    for name, more in (('with a LoRA', a), ('with a LoRA and dropout', replace(a, dropout=0.05, seed=7))):
        yield Case(
            'swiglu_backward',
            name,
            [partial(swiglu.swiglu_backward, *copy, True, a, a, more) for copy in copies],
            bytes=6 * size,
        )


def cross_entropy_cases(s: Shape) -> Iterator[Case]:
    targets = torch.randint(s.vocab, (LOGIT_ROWS,), device='cuda')
    losses = torch.empty(LOGIT_ROWS, device='cuda')
    correct = torch.empty(LOGIT_ROWS, dtype=torch.bool, device='cuda')
    logits = several(lambda: bf16(LOGIT_ROWS, s.vocab))

    def check():
        x = logits[0].clone()
        cross_entropy.cross_entropy(losses, correct, x, targets)
        wanted = exact(lambda t: F.cross_entropy(t, targets, reduction='none'), [logits[0]], torch.ones_like(losses))
        return error(x, wanted[0])

    yield Case(
        'cross_entropy',
        f'{LOGIT_ROWS} rows, with gradient',
        [partial(cross_entropy.cross_entropy, losses, correct, x, targets) for x in logits],
        bytes=LOGIT_ROWS * s.vocab * 4,
        check=check,
    )
    yield Case(
        'cross_entropy',
        f'{LOGIT_ROWS} rows',
        [partial(cross_entropy.cross_entropy, losses, correct, x, targets, gradient=False) for x in logits],
        bytes=LOGIT_ROWS * s.vocab * 2,
    )


def narrow_cases(s: Shape) -> Iterator[Case]:
    p, seed = 0.05, 7
    for name, width, rank in (
        ('qkv', s.hidden, 3 * RANK),
        ('gate and up', s.hidden, 2 * RANK),
        ('down', s.inner, RANK),
    ):
        xs = several(lambda width=width: bf16(TOKENS, width))
        a, slope, grad = bf16(rank, width), bf16(TOKENS, rank), bf16(TOKENS, width)
        moved = TOKENS * width * 2
        yield Case(
            'dropout_shrink',
            f'{name}, r {rank}',
            [partial(lora_dropout.dropout_shrink, x, a, p, seed) for x in xs],
            bytes=moved,
            plain=lambda x=xs[0], a=a: F.dropout(x, p) @ a.T,
        )
        yield Case(
            'dropout_shrink_backward',
            f'{name}, r {rank}',
            [partial(lora_dropout.dropout_shrink_backward, slope, x, a, p, seed, grad) for x in xs],
            bytes=3 * moved,
        )
        yield Case('torch, no dropout', f'{name}: x Aᵀ', [partial(torch.mm, x, a.T) for x in xs], bytes=moved)
        yield Case('torch, no dropout', f'{name}: dA', [partial(torch.mm, slope.T, x) for x in xs], bytes=moved)
        yield Case('torch, no dropout', f'{name}: dx += ', [partial(x.addmm_, slope, a) for x in xs], bytes=2 * moved)


TRAINING: dict[str, Callable[[Shape], Iterator[Case]]] = {
    'residual_norm': residual_norm_cases,
    'rope': rope_cases,
    'swiglu': swiglu_cases,
    'cross_entropy': cross_entropy_cases,
    'lora_dropout': narrow_cases,
}
