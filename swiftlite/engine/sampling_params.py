"""How a request's tokens are chosen and when it ends (vLLM's field names and meanings)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

from .errors import RequestError


class RequestOutputKind(Enum):
    """What a RequestOutput holds: all so far, only what is new, or nothing until the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


MAX_LOGPROBS = 20


@dataclass
class SamplingParams:
    """Sampling parameters of one request; RequestError names the field that is out of range.

    temperature 0 is greedy. top_k 0 or -1, top_p 1 and min_p 0 are off. seed makes the request's random numbers its
    own, whatever runs beside it. max_tokens None: up to the model's length. logprobs k: the k best of each step beside
    the chosen one, from the raw logits. stop strings end the text before them unless include_stop_str_in_output.
    """

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    skip_special_tokens: bool = True
    detokenize: bool = True
    output_kind: RequestOutputKind = field(default=RequestOutputKind.CUMULATIVE)

    def __post_init__(self) -> None:
        self.stop = [self.stop] if isinstance(self.stop, str) else list(self.stop or [])
        self.stop_token_ids = list(self.stop_token_ids or [])
        if self.top_k == -1:
            self.top_k = 0
        for f in ('presence_penalty', 'frequency_penalty', 'repetition_penalty', 'temperature', 'top_p', 'min_p'):
            self._number(f)
        for f in ('n', 'top_k', 'min_tokens'):
            self._integer(f)
        self._check('n', 1 <= self.n <= 16384, 'between 1 and 16384')
        self._check('presence_penalty', -2 <= self.presence_penalty <= 2, 'between -2 and 2')
        self._check('frequency_penalty', -2 <= self.frequency_penalty <= 2, 'between -2 and 2')
        self._check('repetition_penalty', self.repetition_penalty > 0, 'above 0')
        self._check('temperature', self.temperature >= 0, 'at least 0')
        self._check('top_p', 0 < self.top_p <= 1, 'above 0 and at most 1')
        self._check('min_p', 0 <= self.min_p <= 1, 'between 0 and 1')
        self._check('top_k', self.top_k >= 0, '-1 or 0 (off), or at least 1')
        self._check('min_tokens', self.min_tokens >= 0, 'at least 0')
        if self.seed is not None:
            self._integer('seed')
            self._check('seed', -(2**63) <= self.seed < 2**63, 'a 64-bit integer')
        if self.max_tokens is not None:
            self._integer('max_tokens')
            self._check('max_tokens', self.max_tokens >= 1, 'at least 1')
            self._check('min_tokens', self.min_tokens <= self.max_tokens, f'at most max_tokens ({self.max_tokens})')
        if self.logprobs is not None:
            self._integer('logprobs')
            self._check('logprobs', 0 <= self.logprobs <= MAX_LOGPROBS, f'between 0 and {MAX_LOGPROBS}')
        self._check('stop', all(isinstance(s, str) and s for s in self.stop), 'non-empty strings')
        self._check('stop', self.detokenize or not self.stop, 'empty when detokenize is off')
        self._check(
            'stop_token_ids', all(_is_int(t) and t >= 0 for t in self.stop_token_ids), 'token ids of at least 0'
        )
        for token, bias in (self.logit_bias or {}).items():
            self._check(
                'logit_bias',
                _is_int(token) and token >= 0 and isinstance(bias, (int, float)) and math.isfinite(bias),
                'token ids of at least 0 mapped to finite numbers',
            )
        if self.temperature < 1e-5:
            self.temperature = 0.0

    def clone(self, **changes: Any) -> SamplingParams:
        """A checked copy with some fields changed."""
        return replace(self, **changes)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    def validate_vocab(self, vocab_size: int) -> None:
        """RequestError if a token id lies outside the vocabulary."""
        for name, ids in (('stop_token_ids', self.stop_token_ids or ()), ('logit_bias', self.logit_bias or ())):
            for token in ids:
                if token >= vocab_size:
                    raise RequestError(f'{name} holds token id {token}, but the vocabulary has {vocab_size} tokens.')

    def _check(self, name: str, good: bool, valid: str) -> None:
        if not good:
            raise RequestError(f'{name} must be {valid}, got {getattr(self, name)!r}.')

    def _number(self, name: str) -> None:
        value = getattr(self, name)
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        self._check(name, ok, 'a finite number')

    def _integer(self, name: str) -> None:
        self._check(name, _is_int(getattr(self, name)), 'an integer')


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def field_names() -> tuple[str, ...]:
    """The accepted parameters, for error messages and request mapping."""
    return tuple(f.name for f in fields(SamplingParams))
