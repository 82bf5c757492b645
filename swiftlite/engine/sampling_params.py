"""How a request's tokens are chosen and when it ends (vLLM's field names and meanings)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from enum import Enum
from typing import Any

from ..errors import nearest
from .errors import RequestError
from .grammar.params import StructuredOutputsParams, structured
from .prompts import is_unicode


class RequestOutputKind(Enum):
    """What a RequestOutput holds: all so far, only what is new, or nothing until the end."""

    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


MAX_LOGPROBS = 20  # unless the engine was started with another max_logprobs
MAX_BAD_WORDS = 1024
LARGEST = 1e30  # what follows from a larger number may not be finite in fp32
NO_BEAMS = 'beam search is not a way of sampling here; use LLM.beam_search'
REFUSED = {
    'best_of': 'answers are not ranked; use n, and choose by cumulative_logprob',
    'use_beam_search': NO_BEAMS,
    'length_penalty': NO_BEAMS,
    'early_stopping': NO_BEAMS,
    'logits_processors': 'code cannot enter the engine; use logit_bias, bad_words, allowed_token_ids',
    'flat_logprobs': 'logprobs come as one dict a token',
    'extra_args': 'there are no plugins to read them',
}
# values of vLLM that ask for nothing
NEUTRAL: dict[str, tuple[Any, ...]] = {
    'use_beam_search': (False,),
    'length_penalty': (1.0,),
    'early_stopping': (False,),
    'logits_processors': ([], ()),
    'flat_logprobs': (False,),
    'extra_args': ({},),
}


@dataclass
class SamplingParams:
    """Sampling parameters of one request; RequestError names the field that is out of range.

    temperature 0 is greedy. top_k 0 or -1, top_p 1 and min_p 0 are off. seed makes the request's random numbers its
    own, whatever runs beside it. max_tokens None: up to the model's length. logprobs k: the k best of each step beside
    the chosen one, from the raw logits, -1 the whole vocabulary (an engine started with max_logprobs=-1 gives it);
    prompt_logprobs the same for the prompt's tokens. stop strings end the text before them unless
    include_stop_str_in_output. allowed_token_ids: no others, the end token only if it is among them. bad_words: texts
    that never come out as tokens, at the beginning of a word or within one. truncate_prompt_tokens k: only the last k
    tokens of the prompt, -1 as many as leave room for the answer. structured_outputs (or guided_decoding): the form of
    the answer, an object or a dict of its fields.

    Accepted so that they can be refused with a reason: see REFUSED. best_of is accepted where it equals n.
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
    prompt_logprobs: int | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    bad_words: str | Sequence[str] | None = None
    truncate_prompt_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    detokenize: bool = True
    output_kind: RequestOutputKind = field(default=RequestOutputKind.CUMULATIVE)
    structured_outputs: StructuredOutputsParams | dict[str, Any] | None = None
    bad_words_token_ids: tuple[tuple[int, ...], ...] | None = None  # set by update_from_tokenizer
    guided_decoding: InitVar[StructuredOutputsParams | dict[str, Any] | None] = None
    best_of: InitVar[Any] = None
    use_beam_search: InitVar[Any] = None
    length_penalty: InitVar[Any] = None
    early_stopping: InitVar[Any] = None
    logits_processors: InitVar[Any] = None
    flat_logprobs: InitVar[Any] = None
    extra_args: InitVar[Any] = None

    def __new__(cls, *args: Any, **kwargs: Any) -> SamplingParams:
        for name in kwargs:
            if name not in cls.__dataclass_fields__:
                raise RequestError(f"SamplingParams has no field '{name}'{nearest(name, field_names())}.")
        return super().__new__(cls)

    def __post_init__(self, guided_decoding: Any, best_of: Any, *refused: Any) -> None:
        names = [name for name in REFUSED if name != 'best_of']
        for name, value in zip(names, refused, strict=True):
            if value is not None and value not in NEUTRAL[name]:
                raise RequestError(f'{name} is not supported: {REFUSED[name]}.')
        if best_of is not None and best_of != self.n:
            raise RequestError(f'best_of is not supported: {REFUSED["best_of"]}.')
        for f, kinds in (('stop', 'a text or a list of texts'), ('stop_token_ids', 'a list of token ids')):
            value = getattr(self, f)
            self._check(f, value is None or (isinstance(value, Iterable) and not isinstance(value, Mapping)), kinds)
        for f in ('stop', 'stop_token_ids'):
            value = getattr(self, f)
            self._check(f, value is None or isinstance(value, (str, Sequence)), 'a list')
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
        for f in ('logprobs', 'prompt_logprobs'):
            if getattr(self, f) is not None:
                self._integer(f)
                self._check(f, getattr(self, f) >= -1, 'at least 0, or -1 for the whole vocabulary')
        self._check('stop', all(isinstance(s, str) and s for s in self.stop), 'non-empty strings')
        self._check('stop', self.detokenize or not self.stop, 'empty when detokenize is off')
        self._check(
            'stop_token_ids', all(_is_int(t) and t >= 0 for t in self.stop_token_ids), 'token ids of at least 0'
        )
        self._check_bans()
        if self.truncate_prompt_tokens is not None:
            self._integer('truncate_prompt_tokens')
            valid = self.truncate_prompt_tokens == -1 or self.truncate_prompt_tokens >= 1
            self._check('truncate_prompt_tokens', valid, "at least 1, or -1 for the model's length")
        for f in (
            'include_stop_str_in_output',
            'ignore_eos',
            'skip_special_tokens',
            'spaces_between_special_tokens',
            'detokenize',
        ):
            self._check(f, isinstance(getattr(self, f), bool), 'true or false')
        if guided_decoding is not None:
            if self.structured_outputs is not None:
                raise RequestError('guided_decoding and structured_outputs are the same; give one of them.')
            self.structured_outputs = guided_decoding
        if self.structured_outputs is not None:
            self.structured_outputs = structured(self.structured_outputs)
        if self.logit_bias is not None:
            self._check('logit_bias', isinstance(self.logit_bias, dict), 'a dict of token ids and numbers')
        for token, bias in (self.logit_bias or {}).items():
            self._check(
                'logit_bias',
                _is_int(token) and token >= 0 and _is_finite(bias),
                'token ids of at least 0 mapped to finite numbers',
            )
        if self.temperature < 1e-5:
            self.temperature = 0.0

    def clone(self, **changes: Any) -> SamplingParams:
        """A checked copy with some fields changed."""
        if 'bad_words' in changes:
            changes = {'bad_words_token_ids': None} | changes
        return replace(self, **changes)

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    @property
    def structure(self) -> StructuredOutputsParams | None:
        """structured_outputs, which is never a dict any more."""
        assert not isinstance(self.structured_outputs, dict)
        return self.structured_outputs

    def update_from_tokenizer(self, tokenizer: Any) -> None:
        """Fill in what needs a tokenizer: the token ids of bad_words. Whoever sends a request to the engine calls it.

        A word is taken as it begins a text and as it follows a space, where that is as many other tokens.
        """
        if not self.bad_words or self.bad_words_token_ids is not None:
            return
        if tokenizer is None:
            raise RequestError('bad_words needs a tokenizer, but skip_tokenizer_init is set.')
        found: list[tuple[int, ...]] = []
        for word in self.bad_words:
            plain, spaced = (
                tuple(tokenizer.encode(text, add_special_tokens=False)) for text in (word.lstrip(), ' ' + word.lstrip())
            )
            found += [plain] if plain else []
            if plain and spaced and spaced[0] != plain[0] and len(spaced) == len(plain):
                found.append(spaced)
        self.bad_words_token_ids = tuple(dict.fromkeys(found))

    def truncate(self, prompt: list[int], max_model_len: int) -> list[int]:
        """The prompt as truncate_prompt_tokens leaves it: its last tokens. Doing it twice changes nothing."""
        keep = self.truncate_prompt_tokens
        if keep is None:
            return prompt
        if keep == -1:
            keep = max(max_model_len - (self.max_tokens or 1), 1)
        return prompt[-keep:]

    def validate_vocab(self, vocab_size: int) -> None:
        """RequestError if a token id lies outside the vocabulary, or no token is left to choose."""
        words = self.bad_words_token_ids or ()
        for name, ids in (
            ('stop_token_ids', self.stop_token_ids or ()),
            ('logit_bias', self.logit_bias or ()),
            ('allowed_token_ids', self.allowed_token_ids or ()),
            ('bad_words', [token for word in words for token in word]),
        ):
            for token in ids:
                if token >= vocab_size:
                    raise RequestError(f'{name} holds token id {token}, but the vocabulary has {vocab_size} tokens.')
        bad = {word[0] for word in words if len(word) == 1}
        if self.allowed_token_ids is not None and not set(self.allowed_token_ids) - bad:
            raise RequestError('bad_words forbids every token of allowed_token_ids.')

    def validate_logprobs(self, most: int) -> None:
        """RequestError if more log probabilities are asked for than an engine with max_logprobs `most` gives."""
        for name in ('logprobs', 'prompt_logprobs'):
            count = getattr(self, name)
            if count is not None and most != -1 and (count > most or count == -1):
                raise RequestError(
                    f'{name} must be between 0 and {most}, got {count}; max_logprobs of the engine allows more.'
                )

    def _check_bans(self) -> None:
        if isinstance(self.bad_words, str):
            self.bad_words = [self.bad_words]
        if self.bad_words is not None:
            good = isinstance(self.bad_words, (list, tuple)) and len(self.bad_words) <= MAX_BAD_WORDS
            good = good and all(isinstance(word, str) and word.strip() and is_unicode(word) for word in self.bad_words)
            self._check('bad_words', bool(good), f'at most {MAX_BAD_WORDS} non-empty texts of Unicode')
            self.bad_words = list(self.bad_words)
        if self.allowed_token_ids is not None:
            good = isinstance(self.allowed_token_ids, (list, tuple)) and len(self.allowed_token_ids) > 0
            good = good and all(_is_int(t) and t >= 0 for t in self.allowed_token_ids)
            self._check('allowed_token_ids', good, 'a non-empty list of token ids of at least 0')
            self.allowed_token_ids = sorted(set(self.allowed_token_ids))

    def _check(self, name: str, good: bool, valid: str) -> None:
        if not good:
            raise RequestError(f'{name} must be {valid}, got {_short(repr(getattr(self, name)))}.')

    def _number(self, name: str) -> None:
        value = getattr(self, name)
        self._check(name, _is_finite(value), 'a finite number')

    def _integer(self, name: str) -> None:
        self._check(name, _is_int(getattr(self, name)), 'an integer')


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def field_names() -> tuple[str, ...]:
    """The accepted parameters, for error messages and request mapping."""
    return tuple(f.name for f in fields(SamplingParams) if f.name != 'bad_words_token_ids')


def _short(text: str, most: int = 200) -> str:
    return text if len(text) <= most else f'{text[:most]}…'
