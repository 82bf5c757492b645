"""Adapter weights beside a linear layer, and one step's adapters.

Rank-paged storage (S-LoRA, arXiv 2311.03285): the pool of a layer is a matrix whose rows are rank-1 terms; an adapter
owns a few pages of PAGE rows, the same pages in every layer, so adapters of different ranks mix without padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from swiftlite_kernels.paged_lora import Expansion, LoRARouting, shrink

PAGE = 8  # ranks a page


@dataclass(frozen=True)
class LoRAStore:
    """Pools of one linear layer: a [slices, ranks, in], b [ranks, out]; b carries the adapter's scaling."""

    a: torch.Tensor
    b: torch.Tensor
    slices: list[tuple[int, int]]  # (start, rows) in the layer's output

    @cached_property
    def widths(self) -> list[int]:
        return [rows for _, rows in self.slices]


@dataclass(frozen=True)
class LoRABatch:
    """The step's adapters: which tokens go to which rows of the pools."""

    routing: LoRARouting

    def expansion(self, store: LoRAStore, x: torch.Tensor, norm_weight: torch.Tensor | None = None) -> Expansion:
        """What is to be added to the layer's output for x [T, in], multiplied by norm_weight [in] first."""
        return Expansion(shrink(x, store.a, self.routing, norm_weight), store.b, store.widths, self.routing)
