"""Log probabilities in the two shapes of the OpenAI API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swiftlite.engine.outputs import Logprob, RequestOutput


def chat_logprobs(
    token_ids: Sequence[int], steps: Sequence[dict[int, Logprob]], top: int, as_ids: bool
) -> list[dict[str, Any]]:
    """One entry a token: the chosen one, and the `top` most likely in `top_logprobs`."""
    entries = []
    for token, step in zip(token_ids, steps, strict=True):
        entry = _chat_token(token, step[token], as_ids)
        entry['top_logprobs'] = [_chat_token(other, value, as_ids) for other, value in _best(step, top)]
        entries.append(entry)
    return entries


class CompletionLogprobs:
    """The four parallel lists of /v1/completions; `text_offset` counts characters over the whole choice."""

    def __init__(self, top: int, as_ids: bool, tokenizer: Any) -> None:
        self._top = top
        self._as_ids = as_ids
        self._tokenizer = tokenizer  # for the text of a token without a probability
        self._offset = 0

    def feed(self, token_ids: Sequence[int], steps: Sequence[dict[int, Logprob] | None]) -> dict[str, Any]:
        """Lists for these tokens. A step of None (the first prompt token) has no probability."""
        lists: dict[str, Any] = {'text_offset': [], 'token_logprobs': [], 'tokens': [], 'top_logprobs': []}
        for token, step in zip(token_ids, steps, strict=True):
            chosen = step[token] if step else None
            plain = chosen.decoded_token if chosen else None if self._as_ids else self._tokenizer.decode([token])
            text = _name(token, plain, self._as_ids)
            lists['text_offset'].append(self._offset)
            lists['token_logprobs'].append(_finite(chosen.logprob) if chosen else None)
            lists['tokens'].append(text)
            lists['top_logprobs'].append(self._top_by_text(token, step) if step else None)
            self._offset += len(text)
        return lists

    def _top_by_text(self, token: int, step: dict[int, Logprob]) -> dict[str, float]:
        """Text → logprob, most likely first; of tokens that read the same (parts of a character) the first counts."""
        top: dict[str, float] = {}
        for other, value in _best(step, self._top, token):
            top.setdefault(_name(other, value.decoded_token, self._as_ids), _finite(value.logprob))
        return top


def prompt_logprobs(output: RequestOutput) -> list[dict[str, Any] | None] | None:
    """Token id → logprob, rank and text for each prompt token; None for the first, which nothing predicts."""
    if output.prompt_logprobs is None:
        return None
    return [
        None if step is None else {str(token): _prompt_token(value) for token, value in step.items()}
        for step in output.prompt_logprobs
    ]


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The lists of several `CompletionLogprobs.feed` results, end to end."""
    if not parts:
        return None
    return {key: [item for part in parts for item in part[key]] for key in parts[0]}


def _best(step: dict[int, Logprob], top: int, chosen: int | None = None) -> list[tuple[int, Logprob]]:
    ranked = sorted(step.items(), key=lambda item: item[1].rank or 0)
    return [item for place, item in enumerate(ranked) if place < top or item[0] == chosen]


def _chat_token(token: int, value: Logprob, as_ids: bool) -> dict[str, Any]:
    text = _name(token, value.decoded_token, as_ids)
    return {'token': text, 'logprob': _finite(value.logprob), 'bytes': list(text.encode('utf-8', 'replace'))}


def _prompt_token(value: Logprob) -> dict[str, Any]:
    return {'logprob': _finite(value.logprob), 'rank': value.rank, 'decoded_token': value.decoded_token}


def _name(token: int, text: str | None, as_ids: bool) -> str:
    return f'token_id:{token}' if as_ids or text is None else text


def _finite(logprob: float) -> float:
    """JSON has no -inf; vLLM's floor stands for it."""
    return max(logprob, -9999.0)
