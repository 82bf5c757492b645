"""What may be given as a prompt (vLLM's forms), and its token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from ..errors import nearest
from .errors import RequestError


class TextPrompt(TypedDict):
    """A prompt as text."""

    prompt: str


class TokensPrompt(TypedDict):
    """A prompt as token ids."""

    prompt_token_ids: list[int]


Prompt = str | list[int] | TextPrompt | TokensPrompt
KEYS = ('prompt', 'prompt_token_ids')
FORMS = "a prompt is text, a list of token ids, {'prompt': text} or {'prompt_token_ids': ids}"


def listed(prompts: Any) -> list[Any]:
    """One prompt or several, as a list."""
    single = not isinstance(prompts, Sequence) or isinstance(prompts, str | bytes) or _is_ids(prompts)
    return [prompts] if single else list(prompts)


def read_prompt(prompt: Any, tokenizer: Any) -> tuple[str | None, list[int]]:
    """(text if it was given as text, token ids); without a tokenizer only token ids can be read.

    Raises:
        RequestError: it is no prompt, or text that cannot be tokenized.
    """
    if not isinstance(prompt, Mapping):
        if isinstance(prompt, str):
            return prompt, _tokenized(prompt, tokenizer)
        if _is_ids(prompt):
            return None, list(prompt)
        raise RequestError(f'{FORMS}; got {_kind(prompt)}.')
    for key, value in prompt.items():
        if key not in KEYS and value is not None:
            raise RequestError(f'{FORMS}; got {key!r}{nearest(str(key), KEYS)}.')
    ids, text = prompt.get('prompt_token_ids'), prompt.get('prompt')
    if ids is not None and not _is_ids(ids):
        raise RequestError(f'prompt_token_ids must be a non-empty list of token ids, got {_kind(ids)}.')
    if text is not None and not isinstance(text, str):
        raise RequestError(f'prompt must be text, got {_kind(text)}.')
    if ids is not None:
        return text, list(ids)
    if text is None:
        raise RequestError(f'{FORMS}; got neither.')
    return text, _tokenized(text, tokenizer)


def _tokenized(text: str, tokenizer: Any) -> list[int]:
    if tokenizer is None:
        raise RequestError('skip_tokenizer_init is set: give prompt_token_ids instead of text.')
    if not is_unicode(text):
        raise RequestError('the prompt holds half of a surrogate pair, which is no text.')
    return tokenizer(text, verbose=False)['input_ids']  # verbose: the engine itself says what is too long


def is_unicode(text: str) -> bool:
    """Whether it has no half of a surrogate pair, which no tokenizer reads."""
    return not any('\ud800' <= c <= '\udfff' for c in text)


def _is_ids(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(t, int) and not isinstance(t, bool) for t in value)
    )


def _kind(value: Any) -> str:
    return 'an empty list' if value in ([], ()) else type(value).__name__
