"""Adapters on a rank: host copies of what was registered, and the rank pages of every linear layer."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from swiftlite_kernels.paged_lora import LoRARouting

from ...layers.lora import PAGE, LoRABatch, LoRAStore
from ...layers.vocab_lora import VocabLoRA, VocabPair, VocabRun
from ...models.decoder import Decoder
from ..plan import AdapterLoad, StepPlan
from ..runner.batch import StepShape
from ..runner.upload import Upload
from .host import VOCAB, AdapterFormat, HostAdapter
from .layout import Group, groups
from .reader import AdapterReader

TILES = ((256, 8), (1024, 16))  # (tokens of a step, of a tile): in small steps adapters have few tokens each
LARGE_TILE = 64


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
        self.device, self.num_pages = device, num_pages
        # by the adapter's first page; the last one, of rank 0, stands for the base
        self._pool_rows = torch.zeros(num_pages + 1, -(-max_rank // PAGE) * PAGE, dtype=torch.int32, device=device)
        self._ranks = torch.zeros(num_pages + 1, dtype=torch.int32, device=device)
        self._slots: dict[int, int] = {}  # uid → first page
        self._vocab: dict[int, tuple[int, dict[str, VocabPair]]] = {}  # by first page: uid and what it has, if any
        self._tokens, self._rows = (TileList(max_tokens, num_pages, depth, device) for _ in range(2))
        gpu = str(device).startswith('cuda')
        c = model.config
        sizes = c.linear_sizes | dict.fromkeys(('embed_tokens', 'lm_head'), (c.hidden_size, c.vocab_size))
        grouped = groups(model.linears())
        form = AdapterFormat(grouped, sizes, max_rank, dtype, gpu)
        self.reader = AdapterReader(form, device if gpu else None)
        self._copies = torch.cuda.Stream(device) if gpu else None
        self._upload_rows = Upload(device, depth)
        self._pools = [Pools(group, num_pages, dtype, device) for group in grouped]

    def forget(self, uid: int, copy_only: bool) -> None:
        """Give up an adapter; with `copy_only` what is in pages stays usable."""
        self.reader.copies.pop(uid, None)
        if not copy_only:
            slot = self._slots.pop(uid, -1)
            if slot in self._vocab and self._vocab[slot][0] == uid:
                del self._vocab[slot]

    def load(self, loads: list[AdapterLoad]) -> None:
        """Copy adapters from host memory into their pages; at most once a step."""
        numbers = np.concatenate([np.add.outer(np.array(load.pages) * PAGE, np.arange(PAGE)).ravel() for load in loads])
        rows = self._upload_rows(numbers.astype(np.int32)).long()
        start = 0
        for load in loads:
            count = len(load.pages) * PAGE
            self._load(load, self.reader.copies[load.uid], rows[start : start + count])
            start += count

    def _load(self, load: AdapterLoad, copy: HostAdapter, rows: torch.Tensor) -> None:
        ends = dict.fromkeys(itertools.product(range(len(self._pools)), (True, False)), 0)
        for number, arrays in itertools.groupby(copy.arrays, lambda array: array.piece):
            staged = self._staged(copy.pieces[number])
            for array in arrays:
                pools, key = self._pools[array.group], (array.group, array.is_a)
                pools.clear(array.is_a, ends[key], array.first, rows)
                ends[key] = array.first + array.shape[0]
                pools.part(array.is_a, array.first, ends[key]).index_copy_(array.rank_dim, rows, array.of(staged))
        for (group, is_a), end in ends.items():
            self._pools[group].clear(is_a, end, None, rows)
        for page in load.pages:
            self._vocab.pop(page, None)
        slot = load.pages[0]
        if copy.vocab:
            self._vocab[slot] = load.uid, {name: pair.to(self.device) for name, pair in copy.vocab.items()}
        self._pool_rows[slot, : copy.rank] = rows[: copy.rank].int()
        self._ranks[slot] = copy.rank
        self._slots[load.uid] = slot

    def _staged(self, piece: torch.Tensor) -> torch.Tensor:
        """The piece on the device; on a GPU it is copied while earlier steps still compute."""
        if self._copies is None:
            return piece
        with torch.cuda.stream(self._copies):
            staged = piece.to(self.device, non_blocking=True)
        current = torch.cuda.current_stream()
        current.wait_stream(self._copies)
        staged.record_stream(current)
        return staged

    def batch(
        self, plan: StepPlan, adapters: np.ndarray, shape: StepShape, captured: bool
    ) -> tuple[LoRABatch, LoRABatch | None]:
        """The routing of a step whose rows, ordered by adapter, have these uids (0: the base).

        Returns that of all tokens, and of one token a row where those are computed alone. captured: the step replays a
        graph, whose routing has a fixed size and lies where `views` says.
        """
        padded = (shape.tokens, shape.rows) if captured else (None, None)
        tokens = self._batch(self._tokens.write(self._runs(plan.counts, adapters), padded[0]))
        if not shape.few:
            return tokens, None
        return tokens, self._batch(self._rows.write(self._runs(np.ones_like(adapters), adapters), padded[1]))

    def views(self, shape: StepShape) -> tuple[LoRABatch, LoRABatch | None]:
        """The same for a step that is captured: always the same memory."""
        tokens = self._batch(self._tokens.views(shape.tokens))
        return tokens, self._batch(self._rows.views(shape.rows)) if shape.few else None

    def vocab(self, plan: StepPlan, adapters: np.ndarray) -> VocabLoRA | None:
        """Those of the step's adapters that change the embedding or the output layer, if there are any."""
        if not self._vocab:
            return None
        runs = []
        for (slot, first, end), (_, begin, stop) in zip(
            self._runs(plan.counts, adapters), self._runs(np.ones_like(adapters), adapters), strict=True
        ):
            if slot in self._vocab:
                embed, head = (self._vocab[slot][1].get(name) for name in VOCAB)
                runs.append(VocabRun(embed, head, slice(first, end), slice(begin, stop)))
        return VocabLoRA(tuple(runs)) if runs else None

    def _runs(self, counts: np.ndarray, adapters: np.ndarray) -> list[tuple[int, int, int]]:
        """(first page, first token, one past the last) of each run of tokens of one adapter."""
        ends = np.cumsum(counts)
        change = np.flatnonzero(np.diff(adapters, prepend=-1))
        firsts = (ends - counts)[change].tolist()
        slots = (self._slots[uid] if uid else self.num_pages for uid in adapters[change].tolist())
        return list(zip(slots, firsts, [*firsts[1:], int(ends[-1])], strict=True))

    def _batch(self, tiles: tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]) -> LoRABatch:
        adapters, starts, counts, size = tiles
        return LoRABatch(LoRARouting(adapters, starts, counts, self._pool_rows, self._ranks, size))


class Pools:
    """Those of a group of layers, each in one tensor: a [layers, slices, ranks, in], b [layers, ranks, out]."""

    def __init__(self, group: Group, num_pages: int, dtype: torch.dtype, device: torch.device | str):
        first, count, ranks = group.linears[0], len(group.linears), num_pages * PAGE
        slices = [(s.start, s.rows) for s in first.slices]
        out = sum(rows for _, rows in slices)
        self.a = torch.zeros(count, len(slices), ranks, first.in_features, dtype=dtype, device=device)
        self.b = torch.zeros(count, ranks, out, dtype=dtype, device=device)
        for linear, a, b in zip(group.linears, self.a, self.b, strict=True):
            linear.lora = LoRAStore(a, b, slices)

    def part(self, is_a: bool, first: int, end: int | None) -> torch.Tensor:
        """A or B of some of the layers."""
        return (self.a if is_a else self.b)[first:end]

    def clear(self, is_a: bool, first: int, end: int | None, rows: torch.Tensor) -> None:
        """Zeros in these rows of layers that the adapter leaves as they are."""
        part = self.part(is_a, first, end)
        if len(part):
            part.index_fill_(2 if is_a else 1, rows, 0)


class TileList:
    """The tiles of a step on the device: adapters, first tokens and numbers of tokens, in memory that stays."""

    def __init__(self, max_tokens: int, num_pages: int, depth: int, device: torch.device | str):
        self._num_pages, self._gpu = num_pages, str(device).startswith('cuda')
        room = tile_room(max_tokens, num_pages, self._gpu)
        self._tiles = torch.zeros(3 * tile_stride(room), dtype=torch.int32, device=device)
        self._upload = Upload(device, depth)

    def write(
        self, runs: list[tuple[int, int, int]], padded: int | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Cut runs (adapter, first, end) into tiles and upload them; padded: tokens of a captured step.

        Returns (adapters, starts, counts, tokens of a tile), as LoRARouting has them.
        """
        size = tile_size(padded or runs[-1][2], self._gpu)
        tiles = [(of, at, min(size, end - at)) for of, first, end in runs for at in range(first, end, size)]
        count = len(tiles) if padded is None else most_tiles(padded, self._num_pages, self._gpu)
        packed = np.zeros((3, tile_stride(count)), dtype=np.int32)
        packed[:, : len(tiles)] = np.array(tiles, dtype=np.int32).T
        self._upload(packed.reshape(-1), self._tiles[: packed.size])
        return self._views(count, size)

    def views(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """Where the tiles of a captured step of `tokens` tokens lie."""
        return self._views(most_tiles(tokens, self._num_pages, self._gpu), tile_size(tokens, self._gpu))

    def _views(self, count: int, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        adapters, starts, counts = self._tiles[: 3 * tile_stride(count)].view(3, -1)[:, :count]
        return adapters, starts, counts, size


def tile_size(tokens: int, gpu: bool) -> int:
    """Tokens of a tile in a step of so many."""
    if not gpu:
        return max(tokens, 1)  # an adapter's tokens in one product
    return next((size for most, size in TILES if tokens <= most), LARGE_TILE)


def most_tiles(tokens: int, num_pages: int, gpu: bool) -> int:
    """Of any step of `tokens` tokens: each adapter in it has a page and, like the base, at most one tile not full."""
    return min(tokens, tokens // tile_size(tokens, gpu) + num_pages + 1)


def tile_room(max_tokens: int, num_pages: int, gpu: bool) -> int:
    """Of any step of up to `max_tokens`: one with small tiles may have more than the largest."""
    sizes = [most for most, _ in TILES if most < max_tokens] + [max_tokens]
    return max(most_tiles(tokens, num_pages, gpu) for tokens in sizes)


def tile_stride(count: int) -> int:
    """Numbers from one vector of `count` tiles to the next, a multiple of 16 bytes."""
    return -(-count // 4) * 4
