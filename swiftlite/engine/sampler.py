"""From logits to tokens: logprobs of the raw logits, then processors, filters and the draw."""

from __future__ import annotations

import torch

from swiftlite_kernels.sampling import sample
from swiftlite_kernels.step import StepRows, StepTensors

from .batch import BatchState
from .outputs import TokenLogprobs
from .plan import StepPlan


class Sampler:
    """Chooses a token for every row; no row's choice depends on another row."""

    def __init__(self, state: BatchState):
        self.state = state

    def __call__(
        self, logits: torch.Tensor, plan: StepPlan, rows: StepRows, step: StepTensors
    ) -> tuple[torch.Tensor, list[TokenLogprobs] | None]:
        """logits [R, V] → tokens [R] int64 (rows that are not sampled: anything), logprobs of the sampled rows."""
        draw, processed, top_k, top_p, min_p = self.state.features[plan.slots].any(axis=0).tolist()
        raw = logits if plan.num_logprobs >= 0 else None
        if processed:
            logits = self._process(logits.float().clone(), plan)
        if not draw:
            tokens = sample(logits, None, None, None, None, None, None)
        else:
            slots = rows.slots.long()
            shares = self.state.shares[slots]
            tokens = sample(
                logits,
                shares[:, 0].contiguous(),
                self.state.top_k[slots] if top_k else None,
                shares[:, 1].contiguous() if top_p else None,
                shares[:, 2].contiguous() if min_p else None,
                self.state.seeds[slots],
                step.lengths,
            )
        if raw is None:
            return tokens, None
        picked = torch.from_numpy(plan.sample.nonzero()[0]).to(logits.device)
        return tokens, _logprobs(raw[picked], tokens[picked], plan.num_logprobs)

    def _process(self, logits: torch.Tensor, plan: StepPlan) -> torch.Tensor:
        state = self.state
        lengths = (plan.starts + plan.counts).tolist()
        for row, (slot, length) in enumerate(zip(plan.slots.tolist(), lengths, strict=True)):
            params = state.params[slot]
            if params.has_penalties:
                self._penalize(logits[row], state.tokens[slot, :length].long(), state.prompt_lens[slot], slot)
            if params.logit_bias:
                ids = torch.tensor(list(params.logit_bias), device=logits.device)
                bias = torch.tensor(list(params.logit_bias.values()), dtype=logits.dtype, device=logits.device)
                logits[row, ids] += bias
            if length - state.prompt_lens[slot] < params.min_tokens:
                logits[row, list(state.stop_ids[slot])] = float('-inf')
        return logits

    def _penalize(self, row: torch.Tensor, tokens: torch.Tensor, prompt_len: int, slot: int) -> None:
        """row [V]; repetition (CTRL, arXiv 1909.05858) counts the prompt, presence and frequency do not."""
        params = self.state.params[slot]
        if params.repetition_penalty != 1.0:
            seen = torch.unique(tokens)
            values = row[seen]
            row[seen] = torch.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
        if params.presence_penalty or params.frequency_penalty:
            seen, counts = torch.unique(tokens[prompt_len:], return_counts=True)
            row[seen] -= params.presence_penalty + params.frequency_penalty * counts


def _logprobs(logits: torch.Tensor, tokens: torch.Tensor, k: int) -> list[TokenLogprobs]:
    raw = torch.log_softmax(logits.float(), dim=-1)
    chosen = raw.gather(1, tokens.unsqueeze(1))
    ranks = (raw > chosen).sum(dim=1) + 1
    values, ids = raw.topk(max(k, 1), dim=-1)
    return [
        TokenLogprobs(c, r, i[:k], v[:k])
        for c, r, i, v in zip(chosen[:, 0].tolist(), ranks.tolist(), ids.tolist(), values.tolist(), strict=True)
    ]
