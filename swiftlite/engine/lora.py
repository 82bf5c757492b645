"""Adapters on a rank: host copies of what was registered, and the rank pages of every linear layer."""

from __future__ import annotations

import numpy as np
import torch

from swiftlite_kernels.paged_lora import LoRARouting

from ..checkpoint.adapter import LoRAWeights, read_adapter
from ..errors import SwiftliteError
from ..layers.linear import Linear
from ..layers.lora import PAGE, LoRABatch, LoRAStore
from ..models.decoder import Decoder
from .plan import AdapterLoad, StepPlan
from .upload import Upload

FEW_TOKENS = 1024  # a step up to this size has small tiles: its adapters have few tokens each


class LoRAManager:
    """Owns the LoRAStores of a model; uids and pages are chosen by rank 0's AdapterTable."""

    def __init__(
        self,
        model: Decoder,
        num_pages: int,
        max_rank: int,
        max_tokens: int,
        depth: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ):
        self.device, self.num_pages, self.max_rank = device, num_pages, max_rank
        # by the adapter's first page
        self._pool_rows = torch.zeros(num_pages, -(-max_rank // PAGE) * PAGE, dtype=torch.int32, device=device)
        self._ranks = torch.zeros(num_pages, dtype=torch.int32, device=device)
        self._slots: dict[int, int] = {}  # uid → first page
        self._gpu = str(device).startswith('cuda')
        room = tile_room(max_tokens, num_pages, self._gpu)
        self._tiles = torch.zeros(3 * tile_stride(room), dtype=torch.int32, device=device)
        self._upload = Upload(device, depth)
        self._linears: list[Linear] = list(model.linears())
        self._sizes = model.config.linear_sizes
        self._host: dict[int, dict[str, LoRAWeights]] = {}
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
        rank = max(weights.a.shape[0] for weights in modules.values())
        if rank > self.max_rank:
            raise SwiftliteError(
                f'{path}: the adapter has rank {rank}, but this engine takes ranks up to {self.max_rank}; '
                f'start it with max_lora_rank {rank} (--max_lora_rank).'
            )
        self._host[uid] = modules
        return rank

    def forget(self, uid: int) -> None:
        self._host.pop(uid, None)
        self._slots.pop(uid, None)

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
        slot = load.pages[0]
        self._pool_rows[slot, :rank] = rows[:rank].int()
        self._ranks[slot] = rank
        self._slots[load.uid] = slot

    def batch(self, plan: StepPlan, adapters: np.ndarray, tokens: int | None = None) -> LoRABatch:
        """The routing of a step whose rows, ordered by adapter, have these uids (0: the base).

        tokens: the padded size of a captured step, whose routing lies where `views` says.
        """
        size = tile_size(tokens or plan.num_tokens, self._gpu)
        ends = np.cumsum(plan.counts)
        # one run of tokens an adapter
        change = np.flatnonzero(np.diff(adapters, prepend=0))
        firsts = (ends - plan.counts)[change]
        lasts = np.append(firsts[1:], ends[-1])
        tiles = [
            (self._slots[uid], start, min(size, last - start))
            for uid, first, last in zip(adapters[change].tolist(), firsts.tolist(), lasts.tolist(), strict=True)
            if uid
            for start in range(first, last, size)
        ]
        count = len(tiles) if tokens is None else most_tiles(tokens, self.num_pages, self._gpu)
        packed = np.zeros((3, tile_stride(count)), dtype=np.int32)
        packed[:, : len(tiles)] = np.array(tiles, dtype=np.int32).T
        self._upload(packed.reshape(-1), self._tiles[: packed.size])
        return self._views(count, size)

    def views(self, tokens: int) -> LoRABatch:
        """The routing of a captured step of `tokens` tokens, always in the same memory."""
        return self._views(most_tiles(tokens, self.num_pages, self._gpu), tile_size(tokens, self._gpu))

    def _views(self, count: int, size: int) -> LoRABatch:
        adapters, starts, counts = self._tiles[: 3 * tile_stride(count)].view(3, -1)[:, :count]
        return LoRABatch(LoRARouting(adapters, starts, counts, self._pool_rows, self._ranks, size))


def tile_size(tokens: int, gpu: bool) -> int:
    """Tokens of a tile in a step of so many."""
    if not gpu:
        return max(tokens, 1)  # an adapter's tokens in one product
    return 16 if tokens <= FEW_TOKENS else 64


def most_tiles(tokens: int, num_pages: int, gpu: bool) -> int:
    """Of any step of `tokens` tokens; each adapter in it has a page and at most one tile that is not full."""
    return min(tokens, tokens // tile_size(tokens, gpu) + num_pages)


def tile_room(max_tokens: int, num_pages: int, gpu: bool) -> int:
    """Of any step of up to `max_tokens`: the largest of those with small tiles may have more than the largest."""
    return max(most_tiles(tokens, num_pages, gpu) for tokens in (min(FEW_TOKENS, max_tokens), max_tokens))


def tile_stride(count: int) -> int:
    """Numbers from one vector of `count` tiles to the next, a multiple of 16 bytes."""
    return -(-count // 4) * 4
