"""The ops from their definitions, in float64 and plain loops."""

import math

import torch

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def error(got: torch.Tensor, expected: torch.Tensor, against: torch.Tensor | None = None) -> float:
    """||got - expected|| / ||expected|| (or ||against||); infinite when got holds NaN."""
    got, expected = got.detach().double().cpu(), expected.double().cpu()
    if not torch.isfinite(got).all():
        return math.inf
    size = (expected if against is None else against.double().cpu()).norm()
    return float((got - expected).norm() / size.clamp(min=1e-30))


def rms_norm(x: torch.Tensor, weight: torch.Tensor | None, epsilon: float) -> torch.Tensor:
    x = x.double()
    x = x / torch.sqrt((x * x).mean(-1, keepdim=True) + epsilon)
    return x if weight is None else x * weight.double()


def rotate(
    x: torch.Tensor, positions: torch.Tensor, cache: torch.Tensor, neox: bool, offset: int, inverse: bool
) -> torch.Tensor:
    """x [T, heads, d], positions [T], as complex numbers."""
    half = cache.shape[1] // 2
    angle = cache[positions].double()
    phase = torch.complex(angle[:, :half], -angle[:, half:] if inverse else angle[:, half:])[:, None]
    out = x.double().clone()
    part = x[..., offset : offset + 2 * half].double()
    pairs = part.unflatten(-1, (2, half)) if neox else part.unflatten(-1, (half, 2)).transpose(-1, -2)
    turned = torch.complex(pairs[..., 0, :].contiguous(), pairs[..., 1, :].contiguous()) * phase
    pairs = torch.stack([turned.real, turned.imag], -2)
    out[..., offset : offset + 2 * half] = pairs.flatten(-2) if neox else pairs.transpose(-1, -2).flatten(-2)
    return out


def activation(name: str, x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    if name == 'silu':
        return x / (1 + torch.exp(-x))
    if name == 'gelu':
        return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def paged_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: list[int], lengths: list[int], table: torch.Tensor, *,
    scale: float, causal: bool = True, window: tuple[int, int] = (-1, -1), softcap: float = 0.0,
    slopes: torch.Tensor | None = None, alibi_sqrt: bool = False, sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    q, k, v, table = q.double().cpu(), k.double().cpu(), v.double().cpu(), table.cpu()
    out = torch.zeros_like(q)
    block_size, group = k.shape[1], q.shape[1] // k.shape[2]
    for i, length in enumerate(lengths):
        where = [(int(table[i, p // block_size]), p % block_size) for p in range(length)]
        if not where:
            continue
        keys = torch.stack([k[w] for w in where]).repeat_interleave(group, 1)
        values = torch.stack([v[w] for w in where]).repeat_interleave(group, 1)
        for token in range(starts[i], starts[i + 1]):
            position = length - (starts[i + 1] - token)
            distance = position - torch.arange(length)
            scores = torch.einsum('hd,khd->hk', q[token], keys) * scale
            if softcap:
                scores = softcap * torch.tanh(scores / softcap)
            if slopes is not None:
                curve = -distance.clamp(min=0).double().sqrt() if alibi_sqrt else -distance.double()
                scores = scores + slopes.double().cpu()[:, None] * curve
            seen = torch.ones(length, dtype=torch.bool)
            if causal:
                seen &= distance >= 0
            if window[0] >= 0:
                seen &= distance <= window[0]
            if window[1] >= 0:
                seen &= -distance <= window[1]
            scores[:, ~seen] = -math.inf
            if sinks is not None:
                scores = torch.cat([scores, sinks.double().cpu()[:, None]], 1)
            out[token] = torch.einsum('hk,khd->hd', scores.softmax(-1)[:, :length], values)
    return out
