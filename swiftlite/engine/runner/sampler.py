"""From logits to tokens: logprobs of the raw logits, then processors, filters and the draw."""

from __future__ import annotations

import numpy as np
import torch

from swiftlite_kernels.sampling import sample
from swiftlite_kernels.step import StepRows, StepTensors

from ..plan import StepPlan
from .batch import BatchState
from .logprobs import DeviceLogprobs, device_logprobs
from .processors import BANNED, Processors

MASKED_AT_ONCE = 1 << 25  # elements of a mask that is unpacked on the device


class Sampler:
    """Chooses a token for every row; no row's choice depends on another row."""

    def __init__(self, state: BatchState):
        self.state = state
        self._processors: tuple[tuple[int, bytes], Processors] | None = None

    @staticmethod
    def greedy(logits: torch.Tensor) -> torch.Tensor:
        """logits [R, V] → the likeliest tokens [R] int64."""
        return sample(logits, None, None, None, None, None, None)

    def is_greedy(self, plan: StepPlan) -> bool:
        """Whether the likeliest tokens are all that the plan asks for."""
        if plan.num_logprobs >= 0 or plan.masks is not None or self.state.features[plan.slots, :3].any():
            return False
        return not (plan.starts + plan.counts < self.state.first_end[plan.slots]).any()

    def __call__(
        self, logits: torch.Tensor, plan: StepPlan, rows: StepRows, step: StepTensors
    ) -> tuple[torch.Tensor, DeviceLogprobs | None]:
        """logits [R, V] → tokens [R] int64 (rows that are not sampled: anything), logprobs of the sampled rows."""
        state = self.state
        features = state.features[plan.slots]
        draw, penalized, processed, filtered, _ = features.any(axis=0).tolist()
        early = plan.starts + plan.counts < state.first_end[plan.slots]
        raw = logits if plan.num_logprobs >= 0 else None
        if penalized or processed or early.any() or plan.masks is not None:
            logits = logits.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            if penalized:
                self._penalize(logits, plan, np.flatnonzero(features[:, 1]))
            if processed:
                self._process(logits, plan, np.flatnonzero(features[:, 2]))
            if early.any():
                self._hold_ends(logits, plan, np.flatnonzero(early))
            if plan.masks is not None:
                self._mask(logits, plan)
        if not draw:
            tokens = self.greedy(logits)
        else:
            slots = rows.slots.long()
            shares = state.shares[slots]
            # all filters or none: so no mix of requests compiles a kernel of its own
            tokens = sample(
                logits,
                shares[:, 0].contiguous(),
                state.top_k[slots] if filtered else None,
                shares[:, 1].contiguous() if filtered else None,
                shares[:, 2].contiguous() if filtered else None,
                state.seeds[slots],
                step.lengths,
            )
        if raw is None:
            return tokens, None
        asked = np.flatnonzero(plan.sample & features[:, 4])
        picked = torch.from_numpy(asked).to(logits.device)
        return tokens, device_logprobs(raw[picked], tokens[picked], plan.num_logprobs)

    def _process(self, logits: torch.Tensor, plan: StepPlan, picked: np.ndarray) -> None:
        """Bias, allowed ids and bad words; the tables are made when the batch changes."""
        state, slots = self.state, plan.slots[picked]
        key = (state.processed_starts, slots.tobytes())
        if self._processors is None or self._processors[0] != key:
            self._processors = key, Processors([state.params[slot] for slot in slots.tolist()], logits.device)
        lengths = (plan.starts + plan.counts)[picked]
        spans = np.stack([slots, state.prompt_lens[slots], lengths]).astype(np.int64)
        rows = torch.from_numpy(picked).to(logits.device)
        part = logits if len(picked) == len(logits) else logits[rows]
        self._processors[1](part, state.tokens, spans)
        if part is not logits:
            logits[rows] = part

    def _hold_ends(self, logits: torch.Tensor, plan: StepPlan, picked: np.ndarray) -> None:
        """No end token before min_tokens."""
        slots = plan.slots[picked].tolist()
        pairs = [
            (row, end) for row, slot in zip(picked.tolist(), slots, strict=True) for end in self.state.stop_ids[slot]
        ]
        if pairs:
            rows, ends = torch.tensor(pairs, device=logits.device).unbind(1)
            logits[rows, ends] = BANNED

    def _mask(self, logits: torch.Tensor, plan: StepPlan) -> None:
        """Leave the rows of plan.masked the tokens of plan.masks only."""
        assert plan.masks is not None and plan.masked is not None
        ids = torch.arange(logits.shape[1], device=logits.device)
        words, bits = ids >> 5, (ids & 31).int()
        at_once = max(1, MASKED_AT_ONCE // logits.shape[1])
        for i in range(0, len(plan.masked), at_once):
            masks = torch.from_numpy(plan.masks[i : i + at_once].view(np.int32)).to(logits.device)
            index = torch.from_numpy(plan.masked[i : i + at_once]).to(logits.device).long()
            may = (masks[:, words] >> bits) & 1
            logits[index] = logits[index].masked_fill(may == 0, BANNED)

    def _penalize(self, logits: torch.Tensor, plan: StepPlan, picked: np.ndarray) -> None:
        """Repetition (CTRL, arXiv 1909.05858) counts the prompt, presence and frequency do not.

        Everything is done at the places of the known tokens: a token that occurs twice gets the same value twice.
        """
        state, device = self.state, logits.device
        ends = plan.starts[picked] + plan.counts[picked]
        slots = plan.slots[picked]
        numbers = np.stack([picked, slots, ends, state.prompt_lens[slots]]).astype(np.int64)
        rows, at, length, prompt = torch.from_numpy(numbers).to(device)
        values = state.shares[at]
        repetition, presence, frequency = values[:, 3, None], values[:, 4, None], values[:, 5, None]
        tokens = state.tokens[at, : int(ends.max())].long()
        places = torch.arange(tokens.shape[1], device=device)
        # beyond a row's length stands its newest token again
        tokens = torch.where(places < length[:, None], tokens, tokens.gather(1, length[:, None] - 1))
        flat, here = logits.view(-1), rows[:, None] * logits.shape[1] + tokens
        old = flat[here]
        flat[here] = torch.where(old > 0, old / repetition, old * repetition)
        answered = (places >= prompt[:, None]) & (places < length[:, None])
        flat.scatter_add_(0, here.view(-1), torch.where(answered, -frequency, 0.0).view(-1))
        newest = torch.where(answered, here, here[:, -1:])  # an answer's token, if it has one
        flat[newest] = flat[newest] - torch.where((length > prompt)[:, None], presence, 0.0)
