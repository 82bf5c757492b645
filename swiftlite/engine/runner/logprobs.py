"""Log probabilities of chosen tokens and of a prompt's, on the device until a step's result is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..outputs import TokenLogprobs
from ..plan import StepPlan

AT_ONCE = 1 << 26  # logits of a prompt that exist at a time


@dataclass(frozen=True)
class DeviceLogprobs:
    """chosen fp32 [N], ranks int64 [N], ids int64 [N, k], values fp32 [N, k]."""

    chosen: torch.Tensor
    ranks: torch.Tensor
    ids: torch.Tensor
    values: torch.Tensor

    def read(self) -> list[TokenLogprobs]:
        """On the host; waits for the device."""
        parts = (self.chosen, self.ranks, self.ids, self.values)
        return [TokenLogprobs(*row) for row in zip(*(part.tolist() for part in parts), strict=True)]


def device_logprobs(logits: torch.Tensor, tokens: torch.Tensor, k: int) -> DeviceLogprobs:
    """logits [N, V], tokens int64 [N] → their log probabilities and ranks (1 is the most likely), and the k best."""
    raw = torch.log_softmax(logits.float(), dim=-1)
    chosen = raw.gather(1, tokens.unsqueeze(1))
    ranks = (raw > chosen).sum(dim=1) + 1
    values, ids = raw.topk(k, dim=-1)
    return DeviceLogprobs(chosen[:, 0], ranks, ids, values)


def prompt_logprobs(
    hidden: torch.Tensor,
    tokens: torch.Tensor,
    plan: StepPlan,
    rows_at_once: int,
    to_logits: Callable[[torch.Tensor, int], torch.Tensor],
) -> list[list[DeviceLogprobs]]:
    """For each of plan.prompt_rows its log probabilities, in parts.

    hidden [T, H]: of the step's tokens; tokens int32 [slots, N]: known tokens by slot. At most `rows_at_once` rows of
    logits exist at a time, so memory does not grow with the prompt. to_logits: of hidden states of a row of the plan.
    """
    offsets = plan.counts.cumsum() - plan.counts
    found = []
    for at in plan.prompt_rows:
        # the logits of a position are about the next one
        begin = int(offsets[at.row] + at.first - 1 - plan.starts[at.row])
        targets = tokens[int(plan.slots[at.row]), at.first : at.first + at.count].long()
        parts = []
        for i in range(0, at.count, rows_at_once):
            j = min(i + rows_at_once, at.count)
            parts.append(device_logprobs(to_logits(hidden[begin + i : begin + j], at.row), targets[i:j], at.k))
        found.append(parts)
    return found
