"""POST /v1/chat/completions."""

from __future__ import annotations

import time
from typing import Any

from swiftlite.engine.outputs import CompletionOutput, RequestOutput
from swiftlite.serve.errors import ApiError
from swiftlite.serve.ids import response_id
from swiftlite.serve.logprobs import chat_logprobs
from swiftlite.serve.messages import check_tools, template_messages
from swiftlite.serve.prompts import truncated
from swiftlite.serve.protocol import ChatBody, refuse_unsupported
from swiftlite.serve.reply import GenerationReply
from swiftlite.serve.sampling import sampling_params, token_budget
from swiftlite.serve.service import Job, Service
from swiftlite.serve.tool_calls import ToolCallStream
from swiftlite.serve.usage import Usage, check_stream_options


async def create_chat_completion(service: Service, body: ChatBody) -> GenerationReply:
    """Check the request, encode the messages, and return the response that generates; ApiError for what is refused."""
    refuse_unsupported(body)
    check_stream_options(body)
    model = service.models.get(body.model)
    template = service.require_template()
    messages = template_messages(body.messages)
    tools = _offered_tools(body)
    _check_continuation(body, messages)
    if body.top_logprobs and not body.logprobs:
        raise ApiError('top_logprobs needs logprobs true.', param='top_logprobs')
    prompt = await service.encode_chat(
        messages,
        tools=tools,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
    )
    wanted = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    prompt = truncated(prompt, body, wanted, service.max_model_len)
    params = sampling_params(
        body,
        defaults=service.defaults,
        max_tokens=token_budget(len(prompt), wanted, service.max_model_len),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        vocab_size=service.vocab_size,
        template_stops=(tuple(template.stop_strings), tuple(template.stop_token_ids)),
    )
    job = Job(response_id('chatcmpl', body.request_id), model, [prompt], [params], body.n, body.cache_salt)
    echo = messages[-1]['content'] if body.echo and messages[-1]['role'] == 'assistant' else ''
    parallel = body.parallel_tool_calls is not False
    choices = [
        ChatChoice(index, body, echo, ToolCallStream(template, parallel=parallel) if tools else None)
        for index in range(body.n)
    ]
    return GenerationReply(service, ChatAnswer(job, body, choices))


def _offered_tools(body: ChatBody) -> list[dict[str, Any]] | None:
    """The tools the model gets to see: none with tool_choice 'none'."""
    tools = check_tools(body.tools)
    choice = body.tool_choice
    if choice in (None, 'none', 'auto'):
        return None if choice == 'none' else tools
    if tools is None:
        raise ApiError('tool_choice needs tools.', param='tool_choice')
    if choice == 'required' or isinstance(choice, dict):
        raise ApiError('A tool call cannot be forced without constrained decoding; use "auto".', param='tool_choice')
    raise ApiError(f'tool_choice is {choice!r}; valid are "auto" and "none".', param='tool_choice')


def _check_continuation(body: ChatBody, messages: list[dict[str, Any]]) -> None:
    if not body.continue_final_message:
        return
    if body.add_generation_prompt:
        raise ApiError('continue_final_message needs add_generation_prompt false.', param='continue_final_message')
    if messages[-1]['role'] != 'assistant':
        raise ApiError('continue_final_message needs an assistant message at the end.', param='continue_final_message')


class ChatChoice:
    """One sample on its way: turns engine output into message deltas and keeps what they add up to."""

    def __init__(self, index: int, body: ChatBody, echo: str, tools: ToolCallStream | None) -> None:
        self.index = index
        self._body = body
        self._echo = echo
        self._tools = tools
        self._text: list[str] = []
        self._logprobs: list[dict[str, Any]] = []
        self._token_ids: list[int] = []
        self._finish: dict[str, Any] = {}

    def opening(self) -> list[dict[str, Any]]:
        """The first deltas: the role, and the echoed start of the answer."""
        deltas = [{'role': 'assistant', 'content': ''}, *([{'content': self._echo}] if self._echo else [])]
        return [self._entry(delta) for delta in deltas]

    def feed(self, output: CompletionOutput) -> list[dict[str, Any]]:
        """Stream entries of `choices` for what is new; none where nothing can be shown yet."""
        final = output.finish_reason is not None
        text = output.text
        deltas = self._tools.feed(text, final) if self._tools else [{'content': text}] if text else []
        self._text += [delta['content'] for delta in deltas if 'content' in delta]
        extras = self._extras(output)
        if final:
            called = self._tools is not None and bool(self._tools.calls)
            reason = 'tool_calls' if called and output.finish_reason == 'stop' else output.finish_reason
            self._finish = {'finish_reason': reason, 'stop_reason': output.stop_reason}
        if not (deltas or extras or final):
            return []
        entries = [self._entry(delta) for delta in deltas or [{}]]
        entries[-1] |= extras | self._finish
        return entries

    def message(self) -> dict[str, Any]:
        """The entry of `choices` in a response that was not streamed."""
        calls = self._tools.calls if self._tools else []
        content = self._echo + ''.join(self._text)
        message: dict[str, Any] = {'role': 'assistant', 'content': content if content or not calls else None}
        if calls:
            message['tool_calls'] = calls
        logprobs = {'content': self._logprobs} if self._body.logprobs else None
        entry = {'index': self.index, 'message': message, 'logprobs': logprobs, **self._finish}
        return entry | ({'token_ids': self._token_ids} if self._body.return_token_ids else {})

    def _extras(self, output: CompletionOutput) -> dict[str, Any]:
        """Logprobs and token ids of the new tokens, also of those whose text is still held back."""
        extras: dict[str, Any] = {}
        if self._body.logprobs and output.logprobs:
            new = chat_logprobs(
                output.token_ids, output.logprobs, self._body.top_logprobs or 0, self._body.return_tokens_as_token_ids
            )
            self._logprobs += new
            extras['logprobs'] = {'content': new}
        if self._body.return_token_ids and output.token_ids:
            self._token_ids += output.token_ids
            extras['token_ids'] = list(output.token_ids)
        return extras

    def _entry(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {'index': self.index, 'delta': delta, 'logprobs': None, 'finish_reason': None}


class ChatAnswer:
    """The response of one chat request, streamed or whole."""

    def __init__(self, job: Job, body: ChatBody, choices: list[ChatChoice]) -> None:
        self.job = job
        self.stream = body.stream
        self._body = body
        self._choices = choices
        self._usage = Usage(job)
        self._created = int(time.time())

    def opening(self) -> list[dict[str, Any]]:
        chunks = [self._chunk(entry) for choice in self._choices for entry in choice.opening()]
        if self._body.return_token_ids:
            chunks[0]['prompt_token_ids'] = self.job.prompts[0]
        return chunks

    def feed(self, index: int, output: RequestOutput) -> list[dict[str, Any]]:
        self._usage.add(index, output)
        entries = self._choices[index].feed(output.outputs[0])
        return [self._chunk(entry) for entry in entries] if self.stream else []

    def closing(self) -> list[dict[str, Any]]:
        options = self._body.stream_options
        if options is None or not options.include_usage:
            return []
        return [self._envelope('chat.completion.chunk') | {'choices': [], 'usage': self._usage.counts()}]

    def body(self) -> dict[str, Any]:
        choices = [choice.message() for choice in self._choices]
        response = self._envelope('chat.completion') | {'choices': choices, 'usage': self._usage.counts()}
        return response | ({'prompt_token_ids': self.job.prompts[0]} if self._body.return_token_ids else {})

    def _chunk(self, entry: dict[str, Any]) -> dict[str, Any]:
        return self._envelope('chat.completion.chunk') | {'choices': [entry]} | self._usage.in_chunk(self._body)

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {'id': self.job.id, 'object': kind, 'created': self._created, 'model': self.job.model.name}
