"""Completion prompts in all their spellings, and cutting a prompt to length."""

from __future__ import annotations

from typing import Any

from swiftlite.serve.errors import ApiError
from swiftlite.serve.protocol import CompletionBody, GenerationBody
from swiftlite.serve.sampling import check_token_ids
from swiftlite.serve.service import Service, beside_if_long

MAX_PROMPTS = 16384


def prompt_list(prompt: Any) -> list[str | list[int]]:
    """'text' | [ids] | ['text', …] | [[ids], …] → a list of texts and id lists; ApiError for anything else."""
    if isinstance(prompt, str):
        return [prompt]
    if not isinstance(prompt, list) or not prompt:
        raise ApiError('prompt must be a text, a list of token ids, or a non-empty list of either.', param='prompt')
    if all(isinstance(item, int) for item in prompt):
        return [prompt]
    if len(prompt) > MAX_PROMPTS:
        raise ApiError(f'prompt holds {len(prompt)} prompts; the most is {MAX_PROMPTS}.', param='prompt')
    for index, item in enumerate(prompt):
        if not isinstance(item, str | list):
            raise ApiError(f'prompt[{index}] is {item!r:.50}, not a text or a list of token ids.', param='prompt')
    return prompt


async def encode_prompts(service: Service, prompts: list[str | list[int]], body: CompletionBody) -> list[list[int]]:
    """Token ids of each prompt, checked against the vocabulary and never empty."""
    return await beside_if_long(sum(map(len, prompts)), lambda: [_encoded(service, prompt, body) for prompt in prompts])


def _encoded(service: Service, prompt: str | list[int], body: CompletionBody) -> list[int]:
    if isinstance(prompt, str):
        ids = service.text_ids(prompt, body.add_special_tokens)
    else:
        check_token_ids(prompt, service.vocab_size, 'prompt')
        ids = prompt
    if not ids:
        raise ApiError('prompt is empty: there is no token to continue from.', param='prompt')
    return ids


def truncated(ids: list[int], body: GenerationBody, wanted: int | None, max_model_len: int) -> list[int]:
    """`truncate_prompt_tokens`: the last k tokens (or the first, by `truncation_side`); -1: what fits the context."""
    keep = body.truncate_prompt_tokens
    if keep is None:
        return ids
    if keep == 0:
        raise ApiError(
            'truncate_prompt_tokens is 0; give at least 1, or -1 for what fits.', param='truncate_prompt_tokens'
        )
    if keep == -1:
        keep = max(1, max_model_len - (wanted or 1))
    return ids[:keep] if body.truncation_side == 'right' else ids[-keep:]
