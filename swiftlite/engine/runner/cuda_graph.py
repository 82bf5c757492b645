"""Captured steps: the whole forward pass of a padded shape in one launch."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from swiftlite_kernels.step import StepTensors

from ..plan import StepPlan
from .batch import StepShape

# token counts worth a graph: close enough that little of a step is padding, few enough to capture at every start
DECODE = (
    1,
    2,
    4,
    8,
    12,
    16,
    24,
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    256,
    320,
    384,
    448,
    512,
    576,
    640,
    704,
    768,
    832,
    896,
    960,
)
# of decode steps whose rows have a long prefix in common
SHARED = (16, 32, 64, 96, 128, 192, 256, 384, 512)
MIXED = (16, 32, 64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048)


Forward = Callable[[StepShape], tuple[StepTensors, torch.Tensor, torch.Tensor | None]]


@dataclass(frozen=True)
class Captured:
    graph: torch.cuda.CUDAGraph
    step: StepTensors
    logits: torch.Tensor
    tokens: torch.Tensor | None  # the likeliest of each row, already written behind their sequences


class StepGraphs:
    """One graph a shape: decode steps (every row one token) and mixed ones, by padded token count.

    Lengths, tables and ids are read on the device, so a graph serves every plan that fits its shape.
    """

    def __init__(self, max_rows: int, max_tokens: int, lora: bool = False):
        self.max_rows = max_rows = min(max_rows, max_tokens)  # each has at least one token
        self._lora = lora
        self._decode = [n for n in DECODE if n < max_rows] + [max_rows]
        self._shared = [n for n in SHARED if n < max_rows] + [min(max_rows, SHARED[-1])]
        self._mixed = [n for n in MIXED if n <= max_tokens]
        self._graphs: dict[StepShape, Captured] = {}

    def shape(self, plan: StepPlan, lora: bool = False) -> StepShape | None:
        """The smallest captured shape that holds the plan, with or without adapters, or None."""
        tokens = plan.num_tokens
        mixed = tokens > len(plan.slots)
        shared = not lora and plan.shared[2] > 0 and tokens <= self._shared[-1]
        sizes = self._mixed if mixed else self._shared if shared else self._decode
        padded = next((n for n in sizes if n >= tokens), None)
        return None if padded is None else StepShape(padded, min(padded, self.max_rows), mixed, shared, lora)

    def capture(self, forward: Forward) -> None:
        """Capture `forward` for every shape, the largest first so that the others reuse its memory."""
        gc.collect()  # what is freed during a capture spoils it
        gc.disable()
        try:
            self._capture(forward)
        finally:
            gc.enable()

    def _capture(self, forward: Forward) -> None:
        pool = torch.cuda.graph_pool_handle()
        shapes = [StepShape(n, min(n, self.max_rows), True) for n in self._mixed]
        shapes += [StepShape(n, n, False) for n in self._decode]
        shapes += [StepShape(n, n, False, True) for n in dict.fromkeys(self._shared)]
        if self._lora:
            shapes += [replace(shape, lora=True) for shape in shapes if not shape.shared]
        for shape in sorted(shapes, key=lambda s: -s.tokens):
            forward(shape)  # compiles kernels, which a capture must not
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                out = forward(shape)
            self._graphs[shape] = Captured(graph, *out)

    def replay(self, shape: StepShape) -> Captured:
        """Run a captured shape on what the batch state holds; its outputs are overwritten by the next replay."""
        captured = self._graphs[shape]
        captured.graph.replay()
        return captured
