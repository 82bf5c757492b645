"""Captured steps: the whole forward pass of a padded shape in one launch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from swiftlite_kernels.step import StepTensors

from .batch import StepShape
from .plan import StepPlan

MAX_TOKENS = 512


@dataclass(frozen=True)
class Captured:
    graph: torch.cuda.CUDAGraph
    step: StepTensors
    logits: torch.Tensor


class StepGraphs:
    """One graph a shape: decode steps (every row one token) and mixed ones, by padded token count.

    Lengths, tables and ids are read on the device, so a graph serves every plan that fits its shape.
    """

    def __init__(self, max_rows: int, max_tokens: int):
        self.max_rows = max_rows
        self.sizes = [n for n in graph_sizes() if n <= max_tokens]
        self._graphs: dict[StepShape, Captured] = {}

    def shape(self, plan: StepPlan) -> StepShape | None:
        """The smallest captured shape that holds the plan, or None."""
        tokens = plan.num_tokens
        if tokens > self.sizes[-1]:
            return None
        padded = next(n for n in self.sizes if n >= tokens)
        mixed = tokens > len(plan.slots)
        shape = StepShape(padded, min(padded, self.max_rows), mixed)
        return shape if shape in self._graphs else None

    def capture(self, forward: Callable[[StepShape], tuple[StepTensors, torch.Tensor]]) -> None:
        """Capture `forward` for every shape, the largest first so that the others reuse its memory."""
        pool = torch.cuda.graph_pool_handle()
        for mixed in (False, True):
            for tokens in reversed(self.sizes):
                if tokens == 1 and mixed:
                    continue
                shape = StepShape(tokens, min(tokens, self.max_rows), mixed)
                forward(shape)  # compiles kernels, which a capture must not
                torch.cuda.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool):
                    step, logits = forward(shape)
                self._graphs[shape] = Captured(graph, step, logits)

    def replay(self, shape: StepShape) -> tuple[StepTensors, torch.Tensor]:
        """Run a captured shape on what the batch state holds; its outputs are overwritten by the next replay."""
        captured = self._graphs[shape]
        captured.graph.replay()
        return captured.step, captured.logits


def graph_sizes() -> list[int]:
    """Token counts worth a graph: steps of an eighth or less, so that little work is padding."""
    sizes = [1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128]
    return sizes + list(range(160, 257, 32)) + list(range(320, MAX_TOKENS + 1, 64))
