"""The persistent batch on a device: one row a slot, changed by what each plan brings."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .plan import SlotStart, StepPlan
from .sampling_params import SamplingParams


@dataclass(frozen=True)
class StepInputs:
    """A plan's tensors. T tokens, B rows."""

    input_ids: torch.Tensor  # [T] int64
    positions: torch.Tensor  # [T] int64
    slots: torch.Tensor  # [B] int64
    cu_seqlens_q: torch.Tensor  # [B + 1] int32
    seq_lens: torch.Tensor  # [B] int32
    block_tables: torch.Tensor  # [B, n] int32
    slot_mapping: torch.Tensor  # [T] int64


class BatchState:
    """Tokens, block tables and sampling parameters by slot.

    tokens [slots, max_len + 1] holds prompts and, behind them, every token as it is sampled: a step reads its inputs
    here, so a plan can be made and queued before the token it continues from is known to the host.
    """

    def __init__(self, num_slots: int, max_len: int, block_size: int, device: torch.device | str):
        self.block_size, self.device = block_size, device
        self.tokens = torch.zeros(num_slots, max_len + 1, dtype=torch.int32, device=device)
        self.block_tables = torch.zeros(num_slots, -(-max_len // block_size), dtype=torch.int32, device=device)
        self.temperature = torch.zeros(num_slots, dtype=torch.float32, device=device)
        self.top_k = torch.zeros(num_slots, dtype=torch.int32, device=device)
        self.top_p = torch.ones(num_slots, dtype=torch.float32, device=device)
        self.min_p = torch.zeros(num_slots, dtype=torch.float32, device=device)
        self.seeds = torch.zeros(num_slots, dtype=torch.int64, device=device)
        self.params: list[SamplingParams] = [SamplingParams() for _ in range(num_slots)]
        self.prompt_lens = [0] * num_slots
        self.stop_ids: list[tuple[int, ...]] = [()] * num_slots
        self.adapters = [0] * num_slots

    def update(self, plan: StepPlan) -> None:
        """Take in new sequences and new blocks."""
        for start in plan.new:
            self._start(start)
        for slot, first, ids in plan.blocks:
            self.block_tables[slot, first : first + len(ids)] = torch.tensor(ids, dtype=torch.int32)

    def inputs(self, plan: StepPlan) -> StepInputs:
        """Derive a step's inputs from its rows and this state."""
        slots = torch.from_numpy(plan.slots).to(self.device).long()
        starts = torch.from_numpy(plan.starts).to(self.device).long()
        counts = torch.from_numpy(plan.counts).to(self.device).long()
        ends = torch.cumsum(counts, 0)
        total = plan.num_tokens
        cu = torch.zeros(len(plan.slots) + 1, dtype=torch.int32, device=self.device)
        cu[1:] = ends
        rows = torch.repeat_interleave(torch.arange(len(plan.slots), device=self.device), counts, output_size=total)
        positions = torch.arange(total, device=self.device) - (ends - counts - starts)[rows]
        token_slots = slots[rows]
        blocks = self.block_tables[token_slots, positions // self.block_size].long()
        widest = -(-int((plan.starts + plan.counts).max()) // self.block_size)
        return StepInputs(
            input_ids=self.tokens[token_slots, positions].long(),
            positions=positions,
            slots=slots,
            cu_seqlens_q=cu,
            seq_lens=(starts + counts).int(),
            block_tables=self.block_tables[slots, :widest],
            slot_mapping=blocks * self.block_size + positions % self.block_size,
        )

    def write_sampled(self, slots: torch.Tensor, positions: torch.Tensor, tokens: torch.Tensor) -> None:
        """tokens[slot, position] = token, for [S] sampled rows."""
        self.tokens[slots, positions] = tokens.int()

    def _start(self, s: SlotStart) -> None:
        p = s.params
        self.tokens[s.slot, : len(s.tokens)] = torch.from_numpy(s.tokens)
        self.temperature[s.slot], self.top_k[s.slot], self.top_p[s.slot] = p.temperature, p.top_k, p.top_p
        self.min_p[s.slot], self.seeds[s.slot] = p.min_p, s.seed
        self.params[s.slot], self.prompt_lens[s.slot] = p, s.prompt_len
        self.stop_ids[s.slot], self.adapters[s.slot] = s.stop_ids, s.adapter
