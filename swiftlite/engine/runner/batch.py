"""The persistent batch on a device: one row a slot, changed by what each plan brings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from swiftlite_kernels.step import StepRows, StepTensors, prepare_step

from ..plan import StepPlan
from ..sampling_params import SamplingParams
from .processors import has_processors
from .upload import Upload


@dataclass(frozen=True)
class StepShape:
    """Sizes of a step as it runs: tokens and rows (padded under a graph), and whether some row has several tokens."""

    tokens: int
    rows: int
    mixed: bool
    shared: bool = False  # rows that share a prefix read it together
    lora: bool = False

    @property
    def few(self) -> bool:
        """So many more tokens than rows that the last layer had better compute the rows alone."""
        return self.tokens >= 2 * self.rows


def row_stride(count: int) -> int:
    """Numbers from one vector of `count` rows to the next: kernels are compiled anew for addresses off 16 bytes."""
    return -(-(count + 1) // 4) * 4


class BatchState:
    """Tokens, block tables and sampling parameters by slot.

    tokens [slots, max_len + 1] holds prompts and, behind them, every token as it is sampled: a step reads its inputs
    here, so a plan can be made and queued before the token it continues from is known to the host.
    """

    def __init__(
        self, num_slots: int, max_len: int, max_tokens: int, block_size: int, depth: int, device: torch.device | str
    ):
        self.block_size, self.device, self.max_len = block_size, device, max_len
        self.table_width = -(-max_len // block_size)
        self.tokens = torch.zeros(num_slots, max_len + 1, dtype=torch.int32, device=device)
        self.block_tables = torch.zeros(num_slots, self.table_width, dtype=torch.int32, device=device)
        # temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty
        self.shares = torch.zeros(num_slots, 6, dtype=torch.float32, device=device)
        self.top_k = torch.zeros(num_slots, dtype=torch.int32, device=device)
        self.seeds = torch.zeros(num_slots, dtype=torch.int64, device=device)
        self.params: list[SamplingParams] = [SamplingParams() for _ in range(num_slots)]
        self.processed_starts = 0  # sequences with processors that have taken a slot
        # which slots need what of the sampler: a draw, penalties, processors, a filter, logprobs
        self.features = np.zeros((num_slots, 5), dtype=bool)
        self.prompt_lens = np.zeros(num_slots, dtype=np.int32)
        self.first_end = np.zeros(num_slots, dtype=np.int32)  # length from which on a sequence may end (min_tokens)
        self.stop_ids: list[tuple[int, ...]] = [()] * num_slots
        self.adapters = np.zeros(num_slots, dtype=np.int64)  # uids
        self._upload_rows, self._upload_news = Upload(device, depth), Upload(device, depth)
        self._rows = torch.zeros(5 * row_stride(num_slots), dtype=torch.int32, device=device)
        self.row_starts = torch.arange(num_slots + 1, dtype=torch.int32, device=device)
        self._buffers = self._allocate(max_tokens, num_slots)

    def update(self, plan: StepPlan) -> None:
        """Take in new sequences and new blocks: one upload, then copies on the device."""
        if not plan.new and not plan.blocks:
            return
        # seeds come first: they are read as int64
        seeds = np.array([s.seed for s in plan.new], dtype=np.int64).view(np.int32)
        shares = np.array(
            [
                (
                    s.params.temperature,
                    s.params.top_p,
                    s.params.min_p,
                    s.params.repetition_penalty,
                    s.params.presence_penalty,
                    s.params.frequency_penalty,
                )
                for s in plan.new
            ],
            dtype=np.float32,
        )
        cells = np.array(
            [
                (slot * self.table_width + first + i, block)
                for slot, first, ids in plan.blocks
                for i, block in enumerate(ids)
            ],
            dtype=np.int32,
        ).reshape(-1, 2)
        parts = [
            seeds,
            np.array([s.slot for s in plan.new], dtype=np.int32),
            np.array([min(s.params.top_k, 2**31 - 1) for s in plan.new], dtype=np.int32),
            shares.view(np.int32).reshape(-1),
            cells.T.reshape(-1),
            *(s.tokens for s in plan.new),
        ]
        on_device = self._upload_news(np.concatenate(parts))
        new_seeds, slots, top_k, new_shares, new_cells, *tokens = on_device.split([len(p) for p in parts])
        if plan.new:
            index = slots.long()
            self.seeds[index] = new_seeds.view(torch.int64)
            self.top_k[index] = top_k
            self.shares[index] = new_shares.view(torch.float32).view(-1, 6)
        for start, ids in zip(plan.new, tokens, strict=True):
            self.tokens[start.slot, : len(ids)] = ids
            p = start.params
            self.prompt_lens[start.slot] = start.prompt_len
            self.first_end[start.slot] = min(start.prompt_len + p.min_tokens, self.max_len + 1)
            processed = has_processors(p)
            self.processed_starts += processed
            self.params[start.slot] = p
            filtered = p.top_k > 0 or p.top_p < 1 or p.min_p > 0
            self.features[start.slot] = not p.greedy, p.has_penalties, processed, filtered, p.logprobs is not None
            self.stop_ids[start.slot], self.adapters[start.slot] = start.stop_ids, start.adapter
        if plan.blocks:
            at, ids = new_cells.view(2, -1)
            self.block_tables.view(-1).scatter_(0, at.long(), ids)

    def rows(self, plan: StepPlan, count: int) -> StepRows:
        """The plan's rows on the device, padded with empty ones to `count`, always in the same memory."""
        used, stride = len(plan.slots), row_stride(count)
        packed = np.zeros((5, stride), dtype=np.int32)
        packed[0, :used] = plan.slots
        packed[1, :used] = plan.starts
        ends = np.cumsum(plan.counts)
        packed[2, 1 : 1 + used] = ends
        packed[2, 1 + used : 1 + count] = ends[-1]
        packed[3, :used] = plan.sample
        packed[4, :3] = plan.shared
        self._upload_rows(packed.reshape(-1), self._rows[: 5 * stride])
        return self.row_views(count)

    def row_views(self, count: int) -> StepRows:
        slots, starts, cu_seqlens, sampled, _ = self._rows[: 5 * row_stride(count)].view(5, -1)
        return StepRows(slots[:count], starts[:count], cu_seqlens[: count + 1], sampled[:count])

    def shared(self, count: int) -> torch.Tensor:
        """The plan's `shared`, int32 [3], behind `count` rows."""
        return self._rows[4 * row_stride(count) :][:3]

    def prepare(self, rows: StepRows, shape: StepShape, longest: int) -> StepTensors:
        """Derive a step's inputs; `longest`: the most tokens of a sequence, or the limit under a graph."""
        b, width = self._buffers, -(-longest // self.block_size)
        t, r = shape.tokens, shape.rows
        out = StepTensors(
            b.input_ids[:t], b.positions[:t], b.slot_mapping[:t], b.seq_lens[:r], b.block_tables[:r, :width],
            b.last[:r], b.lengths[:r], b.write_at[:r],
        )  # fmt: skip
        prepare_step(rows, self.tokens, self.block_tables, self.block_size, out)
        return out

    def write_sampled(self, write_at: torch.Tensor, tokens: torch.Tensor) -> None:
        """Put drawn tokens [R] behind their sequences (prepare_step says where; unused rows go nowhere)."""
        self.tokens.view(-1).scatter_(0, write_at, tokens.int())

    def _allocate(self, tokens: int, rows: int) -> StepTensors:
        def zeros(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=self.device)

        wide, narrow = torch.int64, torch.int32
        return StepTensors(
            zeros((tokens,), wide), zeros((tokens,), wide), zeros((tokens,), wide), zeros((rows,), narrow),
            zeros((rows, self.table_width), narrow), zeros((rows,), wide), zeros((rows,), wide), zeros((rows,), wide),
        )  # fmt: skip
