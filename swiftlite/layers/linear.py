"""Linear layers that know their tensor-parallel rank and carry the LoRA hook.

A layer may fuse several of a checkpoint's matrices (q|k|v, gate|up): each is a `Slice` of the output rows.
Weights are [out, in]. Adapters address the checkpoint's names, so a slice is also what an adapter's B writes to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from swiftlite_kernels.paged_lora import Expansion, expand

from .context import current_step
from .lora import LoRAStore
from .parallel import TPGroup, shard_size
from .target import Target


@dataclass(frozen=True)
class Slice:
    """A checkpoint matrix inside a fused layer.

    rows: this rank's output rows; start: where they begin in this rank's output;
    full_start: where this rank's rows begin in the checkpoint's matrix.
    """

    name: str
    rows: int
    start: int
    full_start: int
    full_rows: int


class Linear(nn.Module):
    """y = x Wᵀ + b, plus each token's adapter. `prefix` is the checkpoint path above the slices' names."""

    def __init__(
        self,
        prefix: str,
        in_features: int,
        slices: Sequence[Slice],
        bias: bool,
        tp: TPGroup,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        super().__init__()
        self.prefix, self.in_features, self.slices, self.tp = prefix, in_features, tuple(slices), tp
        out_features = sum(s.rows for s in self.slices)
        self.weight = nn.Parameter(
            torch.empty(out_features, in_features, dtype=dtype, device=device), requires_grad=False
        )
        self.bias = (
            nn.Parameter(torch.zeros(out_features, dtype=dtype, device=device), requires_grad=False) if bias else None
        )
        self.lora: LoRAStore | None = None  # set by the adapter manager

    def forward(self, x: torch.Tensor, with_bias: bool = True) -> torch.Tensor:
        """x [T, in] → [T, out]; without bias where the next kernel adds it."""
        y, lora = Linear.project(self, x, with_bias)
        if lora is not None:
            expand(y, lora.shrunk, lora.b, lora.widths, lora.routing)
        return y

    def project(self, x: torch.Tensor, with_bias: bool = True) -> tuple[torch.Tensor, Expansion | None]:
        """The layer, and what the next kernel has to add for the step's adapters."""
        return F.linear(x, self.weight, self.bias if with_bias else None), self.adapters(x)

    def adapters(self, x: torch.Tensor, norm_weight: torch.Tensor | None = None) -> Expansion | None:
        """What the running step's adapters add for x [T, in], multiplied by norm_weight first; None without any."""
        lora = current_step().adapters(x.shape[0])
        return None if lora is None or self.lora is None else lora.expansion(self.lora, x, norm_weight)

    def targets(self) -> dict[str, Target]:
        """By checkpoint tensor name."""
        out: dict[str, Target] = {}
        for s in self.slices:
            out[f'{self.prefix}.{s.name}.weight'] = Target((s.full_rows, self.full_in), partial(self._load_weight, s))
            if self.bias is not None:
                out[f'{self.prefix}.{s.name}.bias'] = Target((s.full_rows,), partial(self._load_bias, s))
        return out

    @property
    def full_in(self) -> int:
        """Input features of the whole model's matrix."""
        return self.in_features

    def shard_lora(self, s: Slice, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """An adapter's A [r, in] and B [out, r] for slice `s` → this rank's parts."""
        return a, b[s.full_start : s.full_start + s.rows]

    def _load_weight(self, s: Slice, tensor: torch.Tensor) -> None:
        self.weight.data[s.start : s.start + s.rows].copy_(tensor[s.full_start : s.full_start + s.rows])

    def _load_bias(self, s: Slice, tensor: torch.Tensor) -> None:
        assert self.bias is not None
        self.bias.data[s.start : s.start + s.rows].copy_(tensor[s.full_start : s.full_start + s.rows])


class ColumnParallelLinear(Linear):
    """Output rows split over ranks. `outputs`: checkpoint name → full number of rows."""

    def __init__(
        self,
        prefix: str,
        in_features: int,
        outputs: dict[str, int],
        bias: bool,
        tp: TPGroup,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        slices, start = [], 0
        for name, full in outputs.items():
            rows = shard_size(full, tp, f'{name} rows')
            slices.append(Slice(name, rows, start, tp.rank * rows, full))
            start += rows
        super().__init__(prefix, in_features, slices, bias, tp, dtype, device)


class QKVParallelLinear(Linear):
    """q|k|v by heads; with fewer KV heads than ranks, each KV head lives on several ranks."""

    def __init__(
        self,
        prefix: str,
        in_features: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        bias: bool,
        tp: TPGroup,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        heads = shard_size(num_heads, tp, 'attention heads')
        if num_kv_heads >= tp.size:
            kv_heads = shard_size(num_kv_heads, tp, 'key-value heads')
            kv_start = tp.rank * kv_heads
        else:
            shard_size(tp.size, TPGroup(0, num_kv_heads), 'ranks per key-value head')
            kv_heads, kv_start = 1, tp.rank * num_kv_heads // tp.size
        self.num_heads, self.num_kv_heads = heads, kv_heads
        q, kv, d = heads * head_dim, kv_heads * head_dim, head_dim
        super().__init__(
            prefix,
            in_features,
            [
                Slice('q_proj', q, 0, tp.rank * q, num_heads * d),
                Slice('k_proj', kv, q, kv_start * d, num_kv_heads * d),
                Slice('v_proj', kv, q + kv, kv_start * d, num_kv_heads * d),
            ],
            bias,
            tp,
            dtype,
            device,
        )


class RowParallelLinear(Linear):
    """Input columns split over ranks; outputs (base and adapter alike) are summed once."""

    def __init__(
        self,
        prefix: str,
        name: str,
        in_features: int,
        out_features: int,
        bias: bool,
        tp: TPGroup,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        local = shard_size(in_features, tp, f'{name} columns')
        self.columns = slice(tp.rank * local, (tp.rank + 1) * local)
        super().__init__(prefix, local, [Slice(name, out_features, 0, 0, out_features)], bias, tp, dtype, device)

    def forward(self, x: torch.Tensor, with_bias: bool = True) -> torch.Tensor:
        return self.tp.all_reduce(super().forward(x, with_bias))

    def project(self, x: torch.Tensor, with_bias: bool = True) -> tuple[torch.Tensor, Expansion | None]:
        return (self(x, with_bias), None) if self.tp.size > 1 else super().project(x, with_bias)

    @property
    def full_in(self) -> int:
        return self.in_features * self.tp.size

    def shard_lora(self, s: Slice, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return a[:, self.columns], b

    def _load_weight(self, s: Slice, tensor: torch.Tensor) -> None:
        self.weight.data.copy_(tensor[:, self.columns])

    def _load_bias(self, s: Slice, tensor: torch.Tensor) -> None:
        if self.tp.rank == 0:  # added once by the sum
            super()._load_bias(s, tensor)
