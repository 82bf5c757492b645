"""Adapters of the token embedding and of the output layer: rare, so a step with some computes them one by one."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class VocabPair:
    """delta W = b @ a of a [vocab, hidden] matrix; a [r, hidden], b [vocab, r] with the scaling in it."""

    a: torch.Tensor
    b: torch.Tensor

    def to(self, device: torch.device | str) -> VocabPair:
        return VocabPair(self.a.to(device, non_blocking=True), self.b.to(device, non_blocking=True))


@dataclass(frozen=True)
class VocabRun:
    """Neighbouring sequences of one adapter that changes the embedding, the output layer, or both."""

    embed: VocabPair | None
    head: VocabPair | None
    tokens: slice
    rows: slice


@dataclass(frozen=True)
class VocabLoRA:
    """Those of a step."""

    runs: tuple[VocabRun, ...]

    def add_embeddings(self, ids: torch.Tensor, out: torch.Tensor) -> None:
        """ids [T] → out [T, hidden] += what the adapters add, in place."""
        for run in self.runs:
            if run.embed is not None:
                out[run.tokens] += run.embed.b[ids[run.tokens]] @ run.embed.a

    def add_logits(self, hidden: torch.Tensor, logits: torch.Tensor, row: int | None = None) -> None:
        """hidden [R, hidden] → logits [R, vocab] += what the adapters add, in place; row: all are of this sequence."""
        for run in self.runs:
            if run.head is None or (row is not None and not run.rows.start <= row < run.rows.stop):
                continue
            rows = run.rows if row is None else slice(None)
            logits[rows] += (hidden[rows] @ run.head.a.t()) @ run.head.b.t()
