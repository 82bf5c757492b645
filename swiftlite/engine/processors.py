"""What changes one row's logits before the draw: bias, allowed ids, bad words. Penalties are made for all rows."""

from __future__ import annotations

import torch

from .plan import SlotStart
from .sampling_params import SamplingParams

BANNED = float('-inf')


def has_processors(params: SamplingParams) -> bool:
    return bool(params.logit_bias or params.allowed_token_ids is not None or params.bad_words_token_ids)


class Processors:
    """The tables of one sequence on the device; made once, when it takes its slot."""

    def __init__(self, start: SlotStart, device: torch.device | str):
        params = start.params
        words = params.bad_words_token_ids or ()
        self.prompt_len = start.prompt_len
        self.bias: tuple[torch.Tensor, torch.Tensor] | None = None
        if params.logit_bias:
            ids, values = list(params.logit_bias), list(params.logit_bias.values())
            self.bias = torch.tensor(ids, device=device), torch.tensor(values, dtype=torch.float32, device=device)
        self.allowed: torch.Tensor | None = None
        if params.allowed_token_ids is not None:
            self.allowed = torch.tensor(list(params.allowed_token_ids), device=device)
        self.bad: torch.Tensor | None = None
        if words:
            # before the last token of each word: its others, right-aligned; -1 fits anything
            width = max(map(len, words)) - 1
            heads = [[-1] * (width + 1 - len(word)) + list(word[:-1]) for word in words]
            self.heads = torch.tensor(heads, dtype=torch.int32, device=device).view(len(words), width)
            self.bad = torch.tensor([word[-1] for word in words], device=device)

    def __call__(self, row: torch.Tensor, tokens: torch.Tensor, length: int) -> None:
        """row fp32 [V] in place; tokens int32 [N]: the sequence, `length` of them known."""
        if self.bias is not None:
            row.index_add_(0, self.bias[0], self.bias[1])
        if self.allowed is not None:
            kept = row[self.allowed]
            row.fill_(BANNED)
            row[self.allowed] = kept
        if self.bad is not None:
            self._ban(row, self.bad, tokens, length)

    def _ban(self, row: torch.Tensor, bad: torch.Tensor, tokens: torch.Tensor, length: int) -> None:
        """Words are looked for in the answer only. Where nothing else is left, the row stays as it is."""
        width = self.heads.shape[1]
        tail = torch.full((width,), -2, dtype=torch.int32, device=row.device)
        known = min(width, length - self.prompt_len)
        if known:
            tail[width - known :] = tokens[length - known : length]
        hit = ((self.heads == tail) | (self.heads == -1)).all(dim=1)
        banned = row.scatter_add(0, bad, torch.where(hit, BANNED, 0.0))
        row.copy_(torch.where(banned.amax() == BANNED, row, banned))
