"""Builds a request's outputs from its new tokens: text, stop strings, logprobs."""

from __future__ import annotations

import itertools
from typing import Any

from .detokenizer import Detokenizer, StopChecker
from .outputs import CompletionOutput, Logprob, RequestOutput, SequenceOutput, TokenLogprobs
from .request import EngineRequest


class RequestState:
    """One sequence in the front process. `update` returns what is new; `stopped` asks the caller to abort it."""

    def __init__(self, request: EngineRequest, tokenizer: Any, index: int = 0):
        self.request, self.index = request, index
        self._tokenizer = tokenizer
        params = request.params
        self._detokenizer = (
            Detokenizer(tokenizer, params.skip_special_tokens, params.spaces_between_special_tokens)
            if params.detokenize and tokenizer is not None
            else None
        )
        self._prompt_logprobs: list[TokenLogprobs] | None = None
        self._stop = StopChecker(list(params.stop or ()), params.include_stop_str_in_output)
        self.stopped = False  # by a stop string: the engine does not know yet
        self.finished = False
        self.cached = 0
        self._tokens = 0

    def update(self, out: SequenceOutput) -> CompletionOutput:
        """Turn an engine output into a delta; tokens after a stop string are dropped."""
        self.cached = max(self.cached, out.num_cached_tokens)
        if out.prompt_logprobs is not None:
            self._prompt_logprobs = out.prompt_logprobs
        delta = CompletionOutput(self.index, '', [], lora_request=self.request.lora)
        if out.logprobs is not None:
            delta.logprobs, delta.cumulative_logprob = [], 0.0
        for i, token in enumerate(out.token_ids):
            delta.token_ids.append(token)
            self._tokens += 1
            if out.logprobs is not None:
                assert delta.logprobs is not None and delta.cumulative_logprob is not None
                delta.logprobs.append(self._logprobs(token, out.logprobs[i], self.request.params.logprobs))
                delta.cumulative_logprob += out.logprobs[i].logprob
            if self._detokenizer is None:
                continue
            last = out.finish_reason is not None and i == len(out.token_ids) - 1
            if last and self._ends(out):
                continue  # the end token is no text
            text, stop = self._detokenizer.add(token), None
            if self._tokens > self.request.params.min_tokens:
                text, stop = self._stop.add(text)
            delta.text += text
            if stop is not None:
                self.stopped = out.finish_reason is None
                return self._finish(delta, 'stop', stop)
        if out.finish_reason is not None:
            text, stop = self._stop.add(self._detokenizer.flush() if self._detokenizer is not None else '')
            delta.text += text
            if stop is not None:
                return self._finish(delta, 'stop', stop)
            delta.text += self._stop.flush()
            return self._finish(delta, out.finish_reason, out.error or out.stop_reason)
        return delta

    def collect(self, out: SequenceOutput, total: CompletionOutput) -> None:
        """Add an output to the whole answer; its text is made at the end, unless stop strings need it as it comes."""
        self.cached = max(self.cached, out.num_cached_tokens)
        if out.prompt_logprobs is not None:
            self._prompt_logprobs = out.prompt_logprobs
        if self.request.params.stop or out.logprobs is not None:
            accumulate(total, self.update(out))
            return
        total.token_ids += out.token_ids
        if out.finish_reason is not None:
            self.finished = True
            total.finish_reason, total.stop_reason = out.finish_reason, out.error or out.stop_reason
            if self._detokenizer is not None:
                text = self._detokenizer.decode(total.token_ids[:-1] if self._ends(out) else total.token_ids)
                total.text = text.rstrip('\ufffd')  # no half character at the end

    def wrap(self, delta: CompletionOutput, prompt: str | None = None) -> RequestOutput:
        return RequestOutput(
            self.request.request_id,
            prompt,
            self.request.prompt_token_ids,
            [delta],
            self.finished,
            self.cached,
            self.request.lora,
            self.prompt_logprobs(),
        )

    def prompt_logprobs(self) -> list[dict[int, Logprob] | None] | None:
        """One entry a prompt token, None for the first; None until the engine has sent them, and from then on."""
        known, self._prompt_logprobs = self._prompt_logprobs, None
        if known is None:
            return None
        k, tokens = self.request.params.prompt_logprobs, self.request.prompt_token_ids
        return [None, *(self._logprobs(token, step, k) for token, step in zip(tokens[1:], known, strict=True))]

    def _ends(self, out: SequenceOutput) -> bool:
        """The last token is an end token, which is no text."""
        return out.finish_reason == 'stop' and not (out.complete or self.request.params.include_stop_str_in_output)

    def _finish(self, delta: CompletionOutput, reason: str, stop: Any) -> CompletionOutput:
        self.finished = True
        delta.finish_reason, delta.stop_reason = reason, stop
        return delta

    def _logprobs(self, token: int, step: TokenLogprobs, k: int | None) -> dict[int, Logprob]:
        best = zip(step.top_ids, step.top_logprobs, strict=True)  # as many as any row of the step asked for
        found = {
            i: Logprob(v, rank + 1, self._text(i))
            for rank, (i, v) in enumerate(itertools.islice(best, None if k == -1 else k))
        }
        found.setdefault(token, Logprob(step.logprob, step.rank, self._text(token)))
        return found

    def _text(self, token: int) -> str | None:
        return None if self._tokenizer is None else self._tokenizer.decode([token])


def accumulate(total: CompletionOutput, delta: CompletionOutput) -> None:
    """Add a delta to the answer so far."""
    total.text += delta.text
    total.token_ids += delta.token_ids
    if delta.logprobs is not None:
        total.logprobs = (total.logprobs or []) + delta.logprobs
        total.cumulative_logprob = (total.cumulative_logprob or 0.0) + (delta.cumulative_logprob or 0.0)
    total.finish_reason, total.stop_reason = delta.finish_reason, delta.stop_reason
