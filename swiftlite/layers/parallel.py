"""The tensor-parallel group a layer belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class TPGroup:
    """A rank's place among `size` ranks; with size 1 every collective is the identity."""

    rank: int = 0
    size: int = 1
    group: Any = None

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """Sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def all_gather_last(self, x: torch.Tensor) -> torch.Tensor:
        """[..., n] on each rank → [..., size * n], in rank order."""
        if self.size == 1:
            return x
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.cat(parts, dim=-1)

    def broadcast(self, x: torch.Tensor) -> torch.Tensor:
        """Rank 0's values on every rank, in place."""
        if self.size > 1:
            dist.broadcast(x, src=0, group=self.group)
        return x


def shard_size(total: int, tp: TPGroup, what: str) -> int:
    """`total` split evenly; raises SwiftliteError when it does not divide."""
    if total % tp.size:
        from ..errors import SwiftliteError

        raise SwiftliteError(f'tensor_parallel_size {tp.size} does not divide the {what} of this model ({total}).')
    return total // tp.size
