"""What changes logits before the draw, row by row of the requests that ask for it: bias, allowed ids, bad words."""

from __future__ import annotations

import numpy as np
import torch

from ..sampling_params import SamplingParams

BANNED = float('-inf')


def has_processors(params: SamplingParams) -> bool:
    return bool(params.logit_bias or params.allowed_token_ids is not None or params.bad_words_token_ids)


class Processors:
    """Tables on a device for P rows, which hold for as long as the same sequences step together.

    Entries of all rows lie behind each other, with the row of each: the work of a step does not grow with P.
    """

    def __init__(self, params: list[SamplingParams], device: torch.device | str):
        self._device = device
        bias = [(row, token, value) for row, p in enumerate(params) for token, value in (p.logit_bias or {}).items()]
        self._bias = self._pairs([(row, token) for row, token, _ in bias])
        self._bias_values = torch.tensor([value for *_, value in bias], dtype=torch.float32, device=device)
        limited = [row for row, p in enumerate(params) if p.allowed_token_ids is not None]
        self._limited = torch.tensor(limited, device=device)
        self._allowed = self._pairs([(row, token) for row in limited for token in params[row].allowed_token_ids or ()])
        words = [(row, word) for row, p in enumerate(params) for word in p.bad_words_token_ids or ()]
        self._bad = self._pairs([(row, word[-1]) for row, word in words])
        # a word's tokens but the last, right-aligned; -1 fits anything
        self._width = max((len(word) - 1 for _, word in words), default=0)
        heads = [[-1] * (self._width + 1 - len(word)) + list(word[:-1]) for _, word in words]
        self._heads = torch.tensor(heads, dtype=torch.int32, device=device).view(len(words), self._width)

    def __call__(self, logits: torch.Tensor, tokens: torch.Tensor, spans: np.ndarray) -> None:
        """logits fp32 [P, V] in place; tokens int32 [slots, N]; spans int64 [3, P]: slots, prompt lengths, lengths."""
        if len(self._bias_values):
            logits[self._bias] += self._bias_values
        if len(self._limited):
            kept = logits[self._allowed]
            logits[self._limited] = BANNED
            logits[self._allowed] = kept
        if len(self._heads):
            self._ban(logits, tokens, spans)

    def _ban(self, logits: torch.Tensor, tokens: torch.Tensor, spans: np.ndarray) -> None:
        """Words are looked for in the answer only. Where nothing else is left, a row stays as it is."""
        rows, last = self._bad
        slots, prompts, lengths = torch.from_numpy(spans).to(self._device)
        places = lengths[:, None] + torch.arange(-self._width, 0, device=self._device)
        tails = torch.where(places >= prompts[:, None], tokens[slots[:, None], places.clamp(min=0)], -2)
        hit = ((self._heads == tails[rows]) | (self._heads == -1)).all(dim=1)
        old = logits[rows, last]
        logits.view(-1).scatter_add_(0, rows * logits.shape[1] + last, torch.where(hit, BANNED, 0.0))
        stuck = logits.amax(dim=1) == BANNED
        logits[rows, last] = torch.where(stuck[rows], old, logits[rows, last])

    def _pairs(self, pairs: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = torch.tensor(pairs, dtype=torch.int64, device=self._device).view(-1, 2).unbind(1)
        return rows, columns
