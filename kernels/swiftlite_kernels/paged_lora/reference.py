"""Paged adapters in torch: two products a tile and slice."""

from collections.abc import Sequence

import torch

from swiftlite_kernels.paged_lora import LoRARouting


def add_lora(
    y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, widths: Sequence[int], routing: LoRARouting
) -> None:
    tiles = zip(routing.adapters.tolist(), routing.starts.tolist(), routing.counts.tolist(), strict=True)
    for adapter, start, count in tiles:
        if count == 0:
            continue
        rows = routing.pool_rows[adapter, : int(routing.ranks[adapter])].long()
        tokens, column = slice(start, start + count), 0
        for s, width in enumerate(widths):
            columns = slice(column, column + width)
            y[tokens, columns] += (x[tokens] @ a[s, rows].t()) @ b[rows, columns]
            column += width
