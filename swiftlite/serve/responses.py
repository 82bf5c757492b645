"""Response bodies as the server's OpenAPI description shows them; endpoints write them as plain dicts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Error(BaseModel):
    message: str
    type: str
    param: str | None
    code: int


class ErrorReply(BaseModel):
    error: Error


class PromptTokensDetails(BaseModel):
    cached_tokens: int


class UsageCounts(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class CalledFunction(BaseModel):
    name: str
    arguments: str


class ToolCall(BaseModel):
    id: str
    type: Literal['function']
    function: CalledFunction


class ChatMessage(BaseModel):
    role: Literal['assistant']
    content: str | None
    tool_calls: list[ToolCall] | None = None


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]


class Finish(BaseModel):
    finish_reason: Literal['stop', 'length', 'tool_calls', 'abort']
    stop_reason: int | str | None


class ChatChoiceReply(Finish):
    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    token_ids: list[int] | None = None


PromptLogprobs = list[dict[str, dict[str, Any]] | None]


class ChatCompletion(BaseModel):
    id: str
    object: Literal['chat.completion']
    created: int
    model: str
    choices: list[ChatChoiceReply]
    usage: UsageCounts
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class CompletionLogprobLists(BaseModel):
    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None]


class CompletionChoiceReply(Finish):
    index: int
    text: str
    logprobs: CompletionLogprobLists | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Completion(BaseModel):
    id: str
    object: Literal['text_completion']
    created: int
    model: str
    choices: list[CompletionChoiceReply]
    usage: UsageCounts


class ModelCard(BaseModel):
    id: str
    object: Literal['model']
    created: int
    owned_by: str
    root: str
    parent: str | None
    max_model_len: int


class ModelList(BaseModel):
    object: Literal['list']
    data: list[ModelCard]


class Tokens(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Text(BaseModel):
    prompt: str


class Version(BaseModel):
    version: str


class Load(BaseModel):
    server_load: int
