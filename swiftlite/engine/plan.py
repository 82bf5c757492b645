"""One step as every rank runs it: plain data, small enough to send."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .outputs import TokenLogprobs
from .sampling_params import SamplingParams


@dataclass(frozen=True)
class SlotStart:
    """A sequence takes a slot: all its known tokens, how it samples, and its adapter (0: none)."""

    slot: int
    tokens: np.ndarray  # int32 [n]
    prompt_len: int
    params: SamplingParams
    seed: int
    stop_ids: tuple[int, ...]  # masked until min_tokens
    adapter: int


@dataclass(frozen=True)
class AdapterLoad:
    """Put a registered adapter into these pages (of layers.lora.PAGE rank rows) before the step."""

    uid: int
    pages: tuple[int, ...]


@dataclass(frozen=True)
class PromptRow:
    """Log probabilities of the prompt's tokens at positions [first, first + count) of a row, with the k best ones."""

    row: int
    first: int  # at least 1: nothing comes before the first token
    count: int
    k: int


@dataclass
class StepPlan:
    """R rows, one a sequence, ordered by adapter; row i computes tokens [start, start + count) of slot i's sequence.

    sample[i]: the row reaches the end of what is known, so a token is sampled and written behind it on the device.
    """

    step: int
    slots: np.ndarray  # int32 [R]
    starts: np.ndarray  # int32 [R]
    counts: np.ndarray  # int32 [R]
    sample: np.ndarray  # bool [R]
    new: list[SlotStart] = field(default_factory=list)
    blocks: list[tuple[int, int, list[int]]] = field(default_factory=list)  # slot, first index in its table, block ids
    adapters: list[AdapterLoad] = field(default_factory=list)
    num_logprobs: int = -1  # most asked for by a sampled row; -1: none
    shared: tuple[int, int, int] = (0, 0, 0)  # rows [first, last) decode and have this many first tokens in common
    prompt_rows: list[PromptRow] = field(default_factory=list)
    masked: np.ndarray | None = None  # int32 [M]: rows that may only take the tokens of `masks`
    masks: np.ndarray | None = None  # uint32 [M, ceil(vocab / 32)]: token i is bit i % 32 of word i // 32

    @property
    def num_tokens(self) -> int:
        return int(self.counts.sum())


@dataclass
class StepResult:
    """Tokens of the sampled rows, in row order."""

    step: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None  # of those among them that ask for some
    prompt_logprobs: list[list[TokenLogprobs]] = field(default_factory=list)  # of prompt_rows
