"""Which tokens one answer may take next: its grammar together with the sampling parameters that forbid tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..sampling_params import SamplingParams
from .compiler import Grammar, masks, set_bits


@dataclass(frozen=True)
class Ending:
    """The answer is over: complete, or (error: why) with nothing that could follow."""

    error: str | None = None


class Constraint:
    """The grammar of one answer, combined with allowed_token_ids, bad_words, min_tokens and its end tokens.

    mask uint32 [ceil(vocab_size / 32)]: token i may come next if bit i % 32 of word i // 32 is set. End tokens may come
    where the grammar accepts, after min_tokens. An answer that can only end is over without one.
    """

    def __init__(self, grammar: Grammar, params: SamplingParams, stop_ids: Iterable[int], vocab_size: int):
        self._grammar, self._params, self._stop_ids = grammar, params, list(stop_ids)
        self._bad = params.bad_words_token_ids or ()
        if params.allowed_token_ids is None:
            self._allowed = np.full(-(-vocab_size // 32), 0xFFFFFFFF, dtype=np.uint32)
            self._allowed[-1] >>= np.uint32(-vocab_size % 32)
        else:
            self._allowed = np.zeros(-(-vocab_size // 32), dtype=np.uint32)
            set_bits(self._allowed, params.allowed_token_ids, True)
        self.mask = self._allowed

    def begin(self) -> Ending | None:
        """Make the mask of the first token."""
        return self._next([], self._grammar.mask())

    def _next(self, outputs: Sequence[int], found: np.ndarray) -> Ending | None:
        if self._grammar.error is not None:
            return Ending(self._grammar.error)
        self.mask = np.zeros_like(self._allowed)
        size = min(len(found), len(self.mask))
        self.mask[:size] = found[:size]
        self.mask &= self._allowed
        early = len(outputs) < self._params.min_tokens
        if early:
            set_bits(self.mask, self._stop_ids, False)
        for word in self._bad:
            if list(word[:-1]) == list(outputs[len(outputs) - len(word) + 1 :]):
                set_bits(self.mask, word[-1:], False)
        accepts = self._grammar.accepts
        if not self.mask.any():
            return Ending(None if accepts else 'the other sampling parameters leave no token that fits it')
        if accepts and not early:
            ends = np.zeros_like(self.mask)
            set_bits(ends, self._stop_ids, True)
            self.mask |= ends & self._allowed
        return None


def take(answers: Sequence[tuple[Constraint, Sequence[int]]]) -> list[Ending | None]:
    """Take the newest token of each answer's (constraint, tokens) in and make the next masks."""
    endings: list[Ending | None] = [None] * len(answers)
    good: list[int] = []
    for i, (constraint, outputs) in enumerate(answers):
        if constraint._grammar.advance(outputs[-1]):
            good.append(i)
        else:
            endings[i] = Ending(constraint._grammar.error or 'the model left it')
    if good:
        found = masks([answers[i][0]._grammar for i in good])
        for i, mask in zip(good, found, strict=True):
            endings[i] = answers[i][0]._next(answers[i][1], mask)
    return endings
