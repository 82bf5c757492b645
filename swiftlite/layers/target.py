"""Where a checkpoint tensor goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Target:
    """A tensor a layer reads: its shape in the checkpoint, and the copy of this rank's part (any dtype)."""

    shape: tuple[int, ...]
    copy: Callable[[torch.Tensor], None]
