"""Adapters on a rank: host copies of what was registered, and the rank pages of every linear layer."""

from __future__ import annotations

import torch

from ..checkpoint.adapter import LoRAWeights, read_adapter
from ..errors import SwiftliteError
from ..layers.linear import Linear
from ..layers.lora import PAGE, LoRABatch, LoRAStore
from ..models.decoder import Decoder
from .plan import AdapterLoad, StepPlan


class LoRAManager:
    """Owns the LoRAStores of a model; uids and pages are chosen by rank 0's AdapterTable."""

    def __init__(self, model: Decoder, num_pages: int, dtype: torch.dtype, device: torch.device | str):
        self.device = device
        self._linears: list[Linear] = list(model.linears())
        self._sizes = model.config.linear_sizes
        self._host: dict[int, dict[str, LoRAWeights]] = {}
        self._rows: dict[int, torch.Tensor] = {}  # uid → pool rows, rank of them
        for linear in self._linears:
            linear.lora = LoRAStore(
                num_pages, linear.in_features, [(s.start, s.rows) for s in linear.slices], dtype, device
            )

    def register(self, uid: int, path: str) -> int:
        """Read and check an adapter; returns its rank. SwiftliteError names the tensor that does not fit."""
        modules = read_adapter(path).modules
        known = {f'{linear.prefix}.{s.name}': s.name for linear in self._linears for s in linear.slices}
        for name, weights in modules.items():
            if name not in known:
                raise SwiftliteError(
                    f"{path}: the adapter changes '{name}', which is not a linear layer of this model; "
                    'merge it with `swiftlite export --merge_lora true` instead.'
                )
            n_in, n_out = self._sizes[known[name]]
            if weights.a.shape[1] != n_in or weights.b.shape[0] != n_out:
                raise SwiftliteError(
                    f"{path}: '{name}' maps {weights.a.shape[1]} to {weights.b.shape[0]} features, but this model's "
                    f'layer maps {n_in} to {n_out}; the adapter was trained on another base.'
                )
        self._host[uid] = modules
        return max(weights.a.shape[0] for weights in modules.values())

    def forget(self, uid: int) -> None:
        self._host.pop(uid, None)
        self._rows.pop(uid, None)

    def load(self, load: AdapterLoad) -> None:
        """Copy a registered adapter into its pages."""
        modules = self._host[load.uid]
        rank = max(weights.a.shape[0] for weights in modules.values())
        rows = torch.tensor(
            [page * PAGE + i for page in load.pages for i in range(PAGE)], dtype=torch.int64, device=self.device
        )
        for linear in self._linears:
            assert linear.lora is not None
            for index, s in enumerate(linear.slices):
                weights = modules.get(f'{linear.prefix}.{s.name}')
                if weights is None:
                    linear.lora.write(rows, index, None, None)
                else:
                    a, b = linear.shard_lora(s, weights.a, weights.b.float() * weights.scaling)
                    linear.lora.write(rows, index, a, b)
        self._rows[load.uid] = rows[:rank]

    def batch(self, plan: StepPlan, adapters: list[int]) -> LoRABatch | None:
        """The step's runs of tokens, from its rows (ordered by adapter) and their adapters' uids (0: the base)."""
        runs: list[tuple[int, int, torch.Tensor]] = []
        begin, last, token = 0, 0, 0
        for uid, count in zip(adapters, plan.counts.tolist(), strict=False):
            if uid != last:
                if last:
                    runs.append((begin, token, self._rows[last]))
                begin, last = token, uid
            token += count
        if last:
            runs.append((begin, token, self._rows[last]))
        return LoRABatch(tuple(runs)) if runs else None
