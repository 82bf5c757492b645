"""Which rows of a global batch each process trains on, one forward and backward pass after the other."""

from collections.abc import Iterator
from typing import Protocol

import torch


class Order(Protocol):
    """Row indices of an epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...


class Shares(torch.utils.data.Sampler[list[int]]):
    """Micro-batches of at most `size` rows for one of `world` processes.

    Every row is used once and by one process. All processes have equally many micro-batches; where the last global
    batch is not full, those of some have fewer rows, or none. Rows that follow each other (sorted by length, as a rule)
    go to the processes in turn, forth and back, so that each gets about as many tokens.
    """

    def __init__(self, order: Order, size: int, rank: int = 0, world: int = 1):
        self.order, self.size, self.rank, self.world = order, size, rank, world

    def __len__(self) -> int:
        return -(-len(self.order) // (self.size * self.world))

    def __iter__(self) -> Iterator[list[int]]:
        together = self.size * self.world
        rows: list[int] = []
        for row in self.order:
            rows.append(row)
            if len(rows) == together:
                yield self._mine(rows)
                rows = []
        if rows:
            yield self._mine(rows)

    def _mine(self, rows: list[int]) -> list[int]:
        """This process's part of the rows of a micro-batch of all."""
        turn = 2 * self.world
        places = (self.rank, turn - 1 - self.rank) if self.world > 1 else (0, 1)
        return [row for index, row in enumerate(rows) if index % turn in places]
