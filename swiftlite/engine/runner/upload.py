"""Small arrays on their way to a device, one a step."""

from __future__ import annotations

import numpy as np
import torch


class Upload:
    """One host array a step → device, through pinned memory on a GPU.

    Steps take turns with a few buffers: when one comes round again its copy is done, because at most `depth` steps are
    in flight beside the one being made.
    """

    def __init__(self, device: torch.device | str, depth: int):
        self._pinned = torch.device(device).type == 'cuda'
        self._device = device
        self._buffers = [torch.empty(0, dtype=torch.int32) for _ in range(depth + 2)]
        self._next = 0

    def __call__(self, array: np.ndarray, out: torch.Tensor | None = None) -> torch.Tensor:
        """int32 [n] to the device, into `out` if given; at most once a step."""
        source = torch.from_numpy(array)
        if not self._pinned:
            return source if out is None else out.copy_(source)
        self._next = (self._next + 1) % len(self._buffers)
        if self._buffers[self._next].numel() < array.size:
            self._buffers[self._next] = torch.empty(2 * array.size, dtype=torch.int32, pin_memory=True)
        staged = self._buffers[self._next][: array.size]
        staged.copy_(source)
        if out is None:
            return staged.to(self._device, non_blocking=True)
        return out.copy_(staged, non_blocking=True)
