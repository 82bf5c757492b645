"""POST /v1/completions."""

from __future__ import annotations

import time
from typing import Any

from swiftlite.engine.outputs import CompletionOutput, RequestOutput
from swiftlite.serve.errors import ApiError
from swiftlite.serve.ids import response_id
from swiftlite.serve.logprobs import CompletionLogprobs, joined
from swiftlite.serve.prompts import encode_prompt, prompt_list, truncated
from swiftlite.serve.protocol import CompletionBody, refuse_unsupported
from swiftlite.serve.reply import GenerationReply
from swiftlite.serve.sampling import sampling_params, token_budget
from swiftlite.serve.service import Job, Service
from swiftlite.serve.usage import Usage, check_stream_options

DEFAULT_MAX_TOKENS = 16


async def create_completion(service: Service, body: CompletionBody) -> GenerationReply:
    """Check the request, encode its prompts, and return the response that generates; ApiError for what is refused."""
    refuse_unsupported(body)
    check_stream_options(body)
    model = service.models.get(body.model)
    if body.echo and body.logprobs is not None:
        raise ApiError('logprobs of an echoed prompt are not supported; ask for echo or logprobs.', param='logprobs')
    given = prompt_list(body.prompt)
    prompts = [await encode_prompt(service, prompt, body) for prompt in given]
    prompts = [truncated(ids, body, body.max_tokens, service.max_model_len) for ids in prompts]
    params = [
        sampling_params(
            body,
            defaults=service.defaults,
            max_tokens=token_budget(len(ids), body.max_tokens, service.max_model_len, DEFAULT_MAX_TOKENS, 'prompt'),
            logprobs=body.logprobs,
            vocab_size=service.vocab_size,
        )
        for ids in prompts
    ]
    job = Job(response_id('cmpl', body.request_id), model, prompts, params, body.n, body.cache_salt)
    echoes = [_echo(service, prompt, body) for prompt in given]
    choices = [CompletionChoice(index, body, echoes[index // body.n]) for index in range(job.size)]
    return GenerationReply(service, CompletionAnswer(job, body, choices))


def _echo(service: Service, prompt: str | list[int], body: CompletionBody) -> str:
    if not body.echo:
        return ''
    if isinstance(prompt, str):
        return prompt
    return service.engine.tokenizer.decode(prompt, skip_special_tokens=body.skip_special_tokens)


class CompletionChoice:
    """One sample on its way: turns engine output into stream entries and keeps what they add up to."""

    def __init__(self, index: int, body: CompletionBody, echo: str) -> None:
        self.index = index
        self._body = body
        self._echo = echo
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._parts: list[dict[str, Any]] = []
        self._lists = CompletionLogprobs(body.logprobs or 0, body.return_tokens_as_token_ids)
        self._finish: dict[str, Any] = {'finish_reason': None, 'stop_reason': None}

    def opening(self) -> list[dict[str, Any]]:
        """The echoed prompt, where it was asked for."""
        return [self._entry(self._echo, None)] if self._echo else []

    def feed(self, output: CompletionOutput) -> list[dict[str, Any]]:
        final = output.finish_reason is not None
        logprobs = None
        if self._body.logprobs is not None and output.logprobs:
            logprobs = self._lists.feed(output.token_ids, output.logprobs)
            self._parts.append(logprobs)
        self._text.append(output.text)
        self._token_ids += output.token_ids
        if final:
            self._finish = {'finish_reason': output.finish_reason, 'stop_reason': output.stop_reason}
        if not (output.text or logprobs or final or self._body.return_token_ids):
            return []
        entry = self._entry(output.text, logprobs) | self._finish
        return [entry | ({'token_ids': list(output.token_ids)} if self._body.return_token_ids else {})]

    def whole(self, prompt: list[int]) -> dict[str, Any]:
        """The entry of `choices` in a response that was not streamed."""
        entry = self._entry(self._echo + ''.join(self._text), joined(self._parts)) | self._finish
        if self._body.return_token_ids:
            entry |= {'token_ids': self._token_ids, 'prompt_token_ids': prompt}
        return entry

    def _entry(self, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {'index': self.index, 'text': text, 'logprobs': logprobs, 'finish_reason': None}


class CompletionAnswer:
    """The response of one completion request, streamed or whole."""

    def __init__(self, job: Job, body: CompletionBody, choices: list[CompletionChoice]) -> None:
        self.job = job
        self.stream = body.stream
        self._body = body
        self._choices = choices
        self._usage = Usage(job)
        self._created = int(time.time())

    def opening(self) -> list[dict[str, Any]]:
        return [self._chunk(entry) for choice in self._choices for entry in choice.opening()]

    def feed(self, index: int, output: RequestOutput) -> list[dict[str, Any]]:
        self._usage.add(index, output)
        entries = self._choices[index].feed(output.outputs[0])
        return [self._chunk(entry) for entry in entries] if self.stream else []

    def closing(self) -> list[dict[str, Any]]:
        options = self._body.stream_options
        if options is None or not options.include_usage:
            return []
        return [self._envelope() | {'choices': [], 'usage': self._usage.counts()}]

    def body(self) -> dict[str, Any]:
        choices = [choice.whole(self.job.prompts[choice.index // self.job.n]) for choice in self._choices]
        return self._envelope() | {'choices': choices, 'usage': self._usage.counts()}

    def _chunk(self, entry: dict[str, Any]) -> dict[str, Any]:
        return self._envelope() | {'choices': [entry]} | self._usage.in_chunk(self._body)

    def _envelope(self) -> dict[str, Any]:
        return {
            'id': self.job.id,
            'object': 'text_completion',
            'created': self._created,
            'model': self.job.model.name,
        }
