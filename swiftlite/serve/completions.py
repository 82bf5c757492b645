"""POST /v1/completions."""

from __future__ import annotations

from typing import Any

from swiftlite.engine.grammar.params import StructuredOutputsParams
from swiftlite.engine.outputs import RequestOutput
from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.serve.answer import Answer
from swiftlite.serve.errors import ApiError
from swiftlite.serve.ids import response_id
from swiftlite.serve.logprobs import CompletionLogprobs, joined, prompt_logprobs
from swiftlite.serve.prompts import encode_prompts, prompt_list, truncated
from swiftlite.serve.protocol import CompletionBody
from swiftlite.serve.refused import refuse_unsupported
from swiftlite.serve.reply import GenerationReply
from swiftlite.serve.sampling import check_sampling, sampling_params, token_budget
from swiftlite.serve.service import Job, Service
from swiftlite.serve.structured import structure_error, wanted_structure
from swiftlite.serve.usage import check_stream

DEFAULT_MAX_TOKENS = 16
KINDS = ('text_completion', 'text_completion')


async def create_completion(service: Service, body: CompletionBody, request_id: str | None = None) -> GenerationReply:
    """Check the request, encode its prompts, and return the response that generates; ApiError for what is refused."""
    service.check_room()
    refuse_unsupported(body)
    check_stream(body)
    model = service.models.get(body.model)
    silent = body.max_tokens == 0
    if silent and not body.echo:
        raise ApiError('max_tokens is 0: that needs echo, else there is nothing to answer.', param='max_tokens')
    structure = wanted_structure(body)
    given = prompt_list(body.prompt)
    prompts = await encode_prompts(service, given, body)
    wanted = 1 if silent else body.max_tokens
    prompts = [truncated(ids, body, wanted, service.max_model_len) for ids in prompts]
    budgets = [token_budget(len(ids), wanted, service.max_model_len, DEFAULT_MAX_TOKENS, 'prompt') for ids in prompts]
    params = {budget: _params(service, body, budget, structure) for budget in dict.fromkeys(budgets)}
    for each in params.values():
        await check_sampling(each, service, structure_error(body))
    job_id = response_id('cmpl', body.request_id or request_id)
    job = Job(job_id, model, prompts, [params[budget] for budget in budgets], body.n, body.cache_salt, silent)
    echoes = [_echo(service, prompt, body) for prompt in given]
    tokenizer = service.engine.tokenizer
    choices = [CompletionChoice(index, body, echoes[index // body.n], tokenizer) for index in range(job.size)]
    return GenerationReply(service, Answer(job, body, choices, KINDS))


def _params(
    service: Service, body: CompletionBody, max_tokens: int, structure: StructuredOutputsParams | None
) -> SamplingParams:
    return sampling_params(
        body,
        defaults=service.defaults,
        max_tokens=max_tokens,
        logprobs=body.logprobs,
        vocab_size=service.vocab_size,
        structure=structure,
        prompt_logprobs=body.logprobs if body.echo and body.prompt_logprobs is None else body.prompt_logprobs,
        max_logprobs=service.limits.max_logprobs,
    )


def _echo(service: Service, prompt: str | list[int], body: CompletionBody) -> str:
    if not body.echo:
        return ''
    if isinstance(prompt, str):
        return prompt
    return service.engine.tokenizer.decode(prompt, skip_special_tokens=body.skip_special_tokens)


class CompletionChoice:
    """One sample on its way; see `answer.Choice`. With max_tokens 0 it shows nothing of what the model wrote."""

    def __init__(self, index: int, body: CompletionBody, echo: str, tokenizer: Any) -> None:
        self.index = index
        self._body = body
        self._echo = echo
        self._silent = body.max_tokens == 0
        self._prompt: list[int] = []
        self._prompt_logprobs: list[dict[str, Any] | None] | None = None
        self._text: list[str] = []
        self._token_ids: list[int] = []
        self._parts: list[dict[str, Any]] = []
        self._lists = CompletionLogprobs(body.logprobs or 0, body.return_tokens_as_token_ids, tokenizer)
        self._finish: dict[str, Any] = {'finish_reason': None, 'stop_reason': None}

    def opening(self, output: RequestOutput) -> list[dict[str, Any]]:
        self._prompt = output.prompt_token_ids
        if self._body.prompt_logprobs is not None:
            self._prompt_logprobs = prompt_logprobs(output)
        logprobs = None
        if self._body.echo and self._body.logprobs is not None and output.prompt_logprobs is not None:
            logprobs = self._lists.feed(output.prompt_token_ids, output.prompt_logprobs)
            self._parts.append(logprobs)
        extra = {'prompt_token_ids': self._prompt} if self._body.return_token_ids else {}
        return [self._entry(self._echo, logprobs) | extra] if self._echo or extra else []

    def feed(self, output: RequestOutput) -> list[dict[str, Any]]:
        new = output.outputs[0]
        final = new.finish_reason is not None
        if self._silent:
            self._finish = {'finish_reason': 'length', 'stop_reason': None}
            return [self._entry('', None) | self._finish] if final else []
        logprobs = None
        if self._body.logprobs is not None and new.logprobs:
            logprobs = self._lists.feed(new.token_ids, new.logprobs)
            self._parts.append(logprobs)
        self._text.append(new.text)
        self._token_ids += new.token_ids
        if final:
            self._finish = {'finish_reason': new.finish_reason, 'stop_reason': new.stop_reason}
        if not (new.text or logprobs or final or self._body.return_token_ids):
            return []
        entry = self._entry(new.text, logprobs) | self._finish
        return [entry | ({'token_ids': list(new.token_ids)} if self._body.return_token_ids else {})]

    def whole(self) -> dict[str, Any]:
        entry = self._entry(self._echo + ''.join(self._text), joined(self._parts)) | self._finish
        if self._body.return_token_ids:
            entry |= {'token_ids': self._token_ids, 'prompt_token_ids': self._prompt}
        return entry | ({} if self._prompt_logprobs is None else {'prompt_logprobs': self._prompt_logprobs})

    def _entry(self, text: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
        return {'index': self.index, 'text': text, 'logprobs': logprobs, 'finish_reason': None}
