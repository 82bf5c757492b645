"""From logits to tokens: logprobs of the raw logits, then processors, filters and the draw."""

from __future__ import annotations

import numpy as np
import torch

from swiftlite_kernels.sampling import sample

from .batch import BatchState
from .outputs import TokenLogprobs


class Sampler:
    """Chooses a token for each sampled row; no row's choice depends on another row."""

    def __init__(self, state: BatchState):
        self.state = state

    def __call__(
        self, logits: torch.Tensor, slots: np.ndarray, lengths: np.ndarray, num_logprobs: int
    ) -> tuple[torch.Tensor, list[TokenLogprobs] | None]:
        """logits [S, V] fp32 (changed in place); slots [S]; lengths [S]: tokens before the one to draw. → [S] int64."""
        raw = torch.log_softmax(logits, dim=-1) if num_logprobs >= 0 else None
        self._process(logits, slots, lengths)
        state = self.state
        if all(state.params[s].greedy for s in slots):
            tokens = logits.argmax(dim=-1)
        else:
            index = torch.from_numpy(slots).to(logits.device).long()
            positions = torch.from_numpy(lengths).to(logits.device).long()
            tokens = sample(
                logits,
                state.temperature[index],
                state.top_k[index],
                state.top_p[index],
                state.min_p[index],
                state.seeds[index],
                positions,
            )
        return tokens, None if raw is None else _logprobs(raw, tokens, num_logprobs)

    def _process(self, logits: torch.Tensor, slots: np.ndarray, lengths: np.ndarray) -> None:
        state = self.state
        for row, (slot, length) in enumerate(zip(slots.tolist(), lengths.tolist(), strict=False)):
            params = state.params[slot]
            if params.has_penalties:
                self._penalize(logits[row], state.tokens[slot, :length].long(), state.prompt_lens[slot], slot)
            if params.logit_bias:
                ids = torch.tensor(list(params.logit_bias), device=logits.device)
                logits[row, ids] += torch.tensor(
                    list(params.logit_bias.values()), dtype=logits.dtype, device=logits.device
                )
            if length - state.prompt_lens[slot] < params.min_tokens:
                logits[row, list(state.stop_ids[slot])] = float('-inf')

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


def _logprobs(raw: torch.Tensor, tokens: torch.Tensor, k: int) -> list[TokenLogprobs]:
    chosen = raw.gather(1, tokens.unsqueeze(1))
    ranks = (raw > chosen).sum(dim=1) + 1
    values, ids = raw.topk(max(k, 1), dim=-1)
    return [
        TokenLogprobs(c, r, i[:k], v[:k])
        for c, r, i, v in zip(chosen[:, 0].tolist(), ranks.tolist(), ids.tolist(), values.tolist(), strict=False)
    ]
