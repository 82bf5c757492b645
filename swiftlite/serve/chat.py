"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from swiftlite.engine.outputs import RequestOutput
from swiftlite.serve.answer import Answer
from swiftlite.serve.errors import ApiError
from swiftlite.serve.ids import response_id
from swiftlite.serve.logprobs import chat_logprobs, prompt_logprobs
from swiftlite.serve.messages import template_messages, template_options
from swiftlite.serve.prompts import truncated
from swiftlite.serve.protocol import ChatBody
from swiftlite.serve.refused import refuse_unsupported
from swiftlite.serve.reply import GenerationReply
from swiftlite.serve.sampling import check_sampling, sampling_params, token_budget
from swiftlite.serve.service import Job, Service
from swiftlite.serve.structured import structure_error, wanted_structure
from swiftlite.serve.tool_calls import ToolCallStream
from swiftlite.serve.tool_choice import hides_calls, tool_use
from swiftlite.serve.tool_grammar import tool_error
from swiftlite.serve.usage import check_stream

KINDS = ('chat.completion', 'chat.completion.chunk')


async def create_chat_completion(service: Service, body: ChatBody, request_id: str | None = None) -> GenerationReply:
    """Check the request, encode the messages, and return the response that generates; ApiError for what is refused."""
    service.check_room()
    refuse_unsupported(body)
    check_stream(body)
    model = service.models.get(body.model)
    template = service.require_template()
    messages = template_messages(body.messages)
    _check_continuation(body, messages)
    if body.top_logprobs and not body.logprobs:
        raise ApiError('top_logprobs needs logprobs true.', param='top_logprobs')
    structure = wanted_structure(body)
    use = tool_use(body, template, structure)
    prompt = await service.encode_chat(
        messages,
        tools=use.tools,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        **template_options(body, template),
    )
    wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    prompt = truncated(prompt, body, wanted, service.max_model_len)
    params = sampling_params(
        body,
        defaults=service.defaults,
        max_tokens=token_budget(len(prompt), wanted, service.max_model_len),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        vocab_size=service.vocab_size,
        structure=use.structure,
        prompt_logprobs=body.prompt_logprobs,
        max_logprobs=service.limits.max_logprobs,
        template_stops=(tuple(template.stop_strings), tuple(template.stop_token_ids)),
    )
    if use.tools and hides_calls(template):
        params = params.clone(skip_special_tokens=False)
    await check_sampling(params, service, structure_error(body) if use.structure is structure else tool_error)
    job_id = response_id('chatcmpl', body.request_id or request_id)
    job = Job(job_id, model, [prompt], [params], body.n, body.cache_salt)
    echo = messages[-1]['content'] if body.echo and messages[-1]['role'] == 'assistant' else ''
    choices = [
        ChatChoice(
            index, body, echo, ToolCallStream(template, parallel=body.parallel_tool_calls) if use.tools else None
        )
        for index in range(body.n)
    ]
    return GenerationReply(service, ChatAnswer(job, body, choices))


def _check_continuation(body: ChatBody, messages: list[dict[str, Any]]) -> None:
    if not body.continue_final_message:
        return
    if body.add_generation_prompt:
        raise ApiError('continue_final_message needs add_generation_prompt false.', param='continue_final_message')
    if messages[-1]['role'] != 'assistant':
        raise ApiError('continue_final_message needs an assistant message at the end.', param='continue_final_message')


class ChatAnswer(Answer):
    """A chat response; its prompt's token ids and logprobs stand beside the choices, which share them."""

    def __init__(self, job: Job, body: ChatBody, choices: list[ChatChoice]) -> None:
        head = {'prompt_token_ids': job.prompts[0]} if body.return_token_ids else {}
        super().__init__(job, body, choices, KINDS, head)
        self._first = choices[0]

    def body(self) -> dict[str, Any]:
        found = self._first.prompt_logprobs
        return super().body() | ({} if found is None else {'prompt_logprobs': found})


class ChatChoice:
    """One sample on its way; see `answer.Choice`."""

    def __init__(self, index: int, body: ChatBody, echo: str, tools: ToolCallStream | None) -> None:
        self.index = index
        self.prompt_logprobs: list[dict[str, Any] | None] | None = None
        self._body = body
        self._echo = echo
        self._tools = tools
        self._text: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._token_ids: list[int] = []
        self._finish: dict[str, Any] = {}

    def opening(self, output: RequestOutput) -> list[dict[str, Any]]:
        self.prompt_logprobs = prompt_logprobs(output)
        deltas = [{'role': 'assistant', 'content': ''}, *([{'content': self._echo}] if self._echo else [])]
        return [self._entry(delta) for delta in deltas]

    def feed(self, output: RequestOutput) -> list[dict[str, Any]]:
        new = output.outputs[0]
        final, text = new.finish_reason is not None, new.text
        deltas = self._tools.feed(text, final) if self._tools else [{'content': text}] if text else []
        self._text += [delta['content'] for delta in deltas if 'content' in delta]
        extras = self._extras(output)
        if final:
            called = self._tools is not None and bool(self._tools.calls)
            reason = 'tool_calls' if called and new.finish_reason == 'stop' else new.finish_reason
            self._finish = {'finish_reason': reason, 'stop_reason': new.stop_reason}
        if not (deltas or extras or final):
            return []
        entries = [self._entry(delta) for delta in deltas or [{}]]
        entries[-1] |= extras | self._finish
        return entries

    def whole(self) -> dict[str, Any]:
        calls = self._tools.calls if self._tools else []
        content = self._echo + ''.join(self._text)
        message: dict[str, Any] = {'role': 'assistant', 'content': content if content or not calls else None}
        if calls:
            message['tool_calls'] = calls
        logprobs = {'content': self._logprobs} if self._body.logprobs else None
        entry = {'index': self.index, 'message': message, 'logprobs': logprobs, **self._finish}
        return entry | ({'token_ids': self._token_ids} if self._body.return_token_ids else {})

    def _extras(self, output: RequestOutput) -> dict[str, Any]:
        """Logprobs and token ids of the new tokens, also of those whose text is still held back."""
        extras: dict[str, Any] = {}
        new = output.outputs[0]
        if self._body.logprobs and new.logprobs:
            logprobs = chat_logprobs(
                new.token_ids, new.logprobs, self._body.top_logprobs or 0, self._body.return_tokens_as_token_ids
            )
            self._logprobs += logprobs
            extras['logprobs'] = {'content': logprobs}
        if self._body.return_token_ids and new.token_ids:
            self._token_ids += new.token_ids
            extras['token_ids'] = list(new.token_ids)
        return extras

    def _entry(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {'index': self.index, 'delta': delta, 'logprobs': None, 'finish_reason': None}
