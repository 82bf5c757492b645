"""Paged adapters in torch: two products a tile and slice."""

from collections.abc import Iterator, Sequence

import torch

from swiftlite_kernels.activation.reference import silu_and_mul
from swiftlite_kernels.paged_lora import LoRARouting


def shrink(x: torch.Tensor, a: torch.Tensor, routing: LoRARouting, norm_weight: torch.Tensor | None) -> torch.Tensor:
    if norm_weight is not None:
        x = x * norm_weight
    stride = rank_stride(routing)
    out = torch.zeros(1, x.shape[0], a.shape[0] * stride, dtype=torch.float32, device=x.device)
    for rows, tokens in used_tiles(routing):
        for s in range(a.shape[0]):
            out[0, tokens, s * stride : s * stride + len(rows)] = (x[tokens] @ a[s, rows].t()).float()
    return out


def expand(
    y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, widths: Sequence[int], routing: LoRARouting
) -> None:
    stride = rank_stride(routing)
    for rows, tokens in used_tiles(routing):
        column = 0
        for s, width in enumerate(widths):
            columns = slice(column, column + width)
            half = shrunk[:, tokens, s * stride : s * stride + len(rows)].sum(0).to(b.dtype)
            y[tokens, columns] += half @ b[rows, columns]
            column += width


def expand_silu_and_mul(
    out: torch.Tensor, y: torch.Tensor, shrunk: torch.Tensor, b: torch.Tensor, routing: LoRARouting
) -> None:
    y, width = y.clone(), out.shape[1]
    expand(y, shrunk, b, (width, width), routing)
    silu_and_mul(out, y)


def rank_stride(routing: LoRARouting) -> int:
    """Columns of a slice in what `shrink` returns."""
    return -(-routing.pool_rows.shape[1] // 16) * 16


def used_tiles(routing: LoRARouting) -> Iterator[tuple[torch.Tensor, slice | torch.Tensor]]:
    """(rows of the pool, tokens) of every tile that has an adapter."""
    tiles = zip(routing.adapters.tolist(), routing.starts.tolist(), routing.counts.tolist(), strict=True)
    for adapter, start, count in tiles:
        rank = int(routing.ranks[adapter]) if count else 0
        if rank:
            tokens = slice(start, start + count)
            yield routing.pool_rows[adapter, :rank].long(), tokens if routing.order is None else routing.order[tokens]
