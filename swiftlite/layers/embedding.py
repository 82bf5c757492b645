"""Token embedding and output head, split over ranks by vocabulary rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .context import current_step
from .parallel import TPGroup
from .target import Target


class VocabEmbedding(nn.Module):
    """Rows [rank * n, (rank + 1) * n) of a [vocab, hidden] matrix, n = ceil(vocab / ranks)."""

    def __init__(
        self, name: str, vocab_size: int, hidden_size: int, tp: TPGroup, dtype: torch.dtype, device: torch.device | str
    ):
        super().__init__()
        self.name, self.vocab_size, self.tp = name, vocab_size, tp
        self.rows = -(-vocab_size // tp.size)
        self.start = tp.rank * self.rows
        self.weight = nn.Parameter(torch.zeros(self.rows, hidden_size, dtype=dtype, device=device), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """ids [T] → [T, hidden], with the step's adapters of the embedding."""
        out = self._embed(ids)
        vocab = current_step().vocab
        if vocab is not None:
            vocab.add_embeddings(ids, out)
        return out

    def _embed(self, ids: torch.Tensor) -> torch.Tensor:
        if self.tp.size == 1:
            return F.embedding(ids, self.weight)
        local = ids - self.start
        mine = (local >= 0) & (local < self.rows)
        out = F.embedding(local.clamp(0, self.rows - 1), self.weight) * mine.unsqueeze(-1)
        return self.tp.all_reduce(out)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden [R, hidden] → logits [R, vocab] in the model's dtype, the same on every rank."""
        out = F.linear(hidden, self.weight)
        return self.tp.all_gather_last(out)[:, : self.vocab_size]

    def targets(self) -> dict[str, Target]:
        return {f'{self.name}.weight': Target((self.vocab_size, self.weight.shape[1]), self._load)}

    def _load(self, tensor: torch.Tensor) -> None:
        part = tensor[self.start : self.start + self.rows]
        self.weight.data[: part.shape[0]].copy_(part)
