"""What every layer may read about the step that is running: the one global of the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .lora import LoRABatch
    from .vocab_lora import VocabLoRA


@dataclass(frozen=True)
class StepContext:
    """One variable-length batch of T query tokens from B sequences.

    cu_seqlens_q  [B+1] int32   offsets of each sequence's query tokens
    seq_lens      [B]   int32   keys each sequence attends to, this step's tokens included
    block_tables  [B, max_blocks] int32
    slot_mapping  [T]   int64   cache slot of each token (block * block_size + offset), -1: not cached
    shared        [3]   int32   (first, last, n): single-token sequences that have the first n keys in common
    rows          [B]   int64   the last token of each sequence, where only these are wanted of the last layer
    row_starts    [B+1] int32   0, 1, … B, with `rows`
    dense                       prompts of this step that attend to themselves alone: (first token, count)
    sparse_lens   [B]   int32   seq_lens, 0 for those in `dense`; None when all are in it
    lora, row_lora              adapters of the tokens, and of `rows`
    vocab                       those that change the embedding or the output layer
    """

    cu_seqlens_q: torch.Tensor
    seq_lens: torch.Tensor
    block_tables: torch.Tensor
    slot_mapping: torch.Tensor
    max_query_len: int
    max_seq_len: int
    lora: LoRABatch | None = None
    shared: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    row_starts: torch.Tensor | None = None
    dense: tuple[tuple[int, int], ...] = ()
    sparse_lens: torch.Tensor | None = None
    row_lora: LoRABatch | None = None
    vocab: VocabLoRA | None = None

    def adapters(self, count: int) -> LoRABatch | None:
        """Those of all tokens, or of `rows` for an input of that size."""
        return self.row_lora if self.rows is not None and count == self.rows.shape[0] else self.lora


_current: StepContext | None = None


@contextmanager
def step_context(context: StepContext) -> Iterator[None]:
    """Make `context` the running step's; nesting is a mistake."""
    global _current
    assert _current is None, 'a step is already running'
    _current = context
    try:
        yield
    finally:
        _current = None


def current_step() -> StepContext:
    assert _current is not None, 'no step is running'
    return _current
