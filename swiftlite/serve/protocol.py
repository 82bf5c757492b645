"""Request bodies of the OpenAI endpoints, with vLLM's extra fields (vLLM 0.24 names and ranges).

Unknown fields are accepted, as OpenAI and vLLM do. A known field is either honoured or, through `REFUSED`, answered
with 400 and the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from swiftlite.serve.errors import ApiError

MAX_N = 16384
INT64 = 2**63


class Body(BaseModel):
    model_config = ConfigDict(extra='allow', allow_inf_nan=False)


class StreamOptions(Body):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class GenerationBody(Body):
    """What chat and text completions share."""

    model: str | None = None
    n: int = Field(1, ge=1, le=MAX_N)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=INT64)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = Field(0, ge=0, lt=INT64)
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    truncate_prompt_tokens: int | None = Field(None, ge=-1, lt=INT64)
    truncation_side: Literal['left', 'right'] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    request_id: str | None = Field(None, max_length=128)
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    cache_salt: str | None = None
    user: str | None = None

    @field_validator('stop')
    @classmethod
    def _stop_is_a_list(cls, stop: str | list[str] | None) -> list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop
        if stops and not all(stops):
            raise ValueError('a stop string cannot be empty')
        return stops


class ChatBody(GenerationBody):
    """POST /v1/chat/completions. `messages` are checked in `messages.py`, which words its errors well."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, lt=INT64)
    max_completion_tokens: int | None = Field(None, ge=1, lt=INT64)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    echo: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class CompletionBody(GenerationBody):
    """POST /v1/completions. `prompt`: a text, a list of token ids, or a list of either."""

    prompt: Any = Field(
        json_schema_extra={
            'anyOf': [
                {'type': 'string'},
                {'type': 'array', 'items': {'type': 'string'}},
                {'type': 'array', 'items': {'type': 'integer'}},
                {'type': 'array', 'items': {'type': 'array', 'items': {'type': 'integer'}}},
            ]
        }
    )
    max_tokens: int | None = Field(None, ge=1, lt=INT64)
    logprobs: int | None = Field(None, ge=0)
    echo: bool = False
    add_special_tokens: bool = True


class TokenizeBody(Body):
    """POST /tokenize: either `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = Field(None, min_length=1)
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    return_token_strs: bool = False


class DetokenizeBody(Body):
    model: str | None = None
    tokens: list[int]


class LoadAdapterBody(Body):
    lora_name: str = ''
    lora_path: str = ''
    load_inplace: bool = False


class UnloadAdapterBody(Body):
    lora_name: str = ''
    lora_int_id: int | None = None


@dataclass(frozen=True)
class Refusal:
    field: str
    reason: str
    harmless: Callable[[Any], bool] = lambda value: value in (None, False, [], {})


# Known fields that this server does not honour; a harmless value means what the server does anyway.
REFUSED = (
    Refusal('response_format', 'only {"type": "text"} is supported', lambda v: v is None or v == {'type': 'text'}),
    Refusal('structured_outputs', 'constrained decoding is not supported'),
    Refusal('guided_json', 'constrained decoding is not supported'),
    Refusal('guided_regex', 'constrained decoding is not supported'),
    Refusal('guided_choice', 'constrained decoding is not supported'),
    Refusal('guided_grammar', 'constrained decoding is not supported'),
    Refusal('structural_tag', 'constrained decoding is not supported'),
    Refusal('use_beam_search', 'beam search is not supported; use temperature 0 or n samples'),
    Refusal('best_of', 'it left the API; use n', lambda v: v in (None, 1)),
    Refusal('length_penalty', 'it belongs to beam search', lambda v: v in (None, 1)),
    Refusal('allowed_token_ids', 'it is not supported; use logit_bias'),
    Refusal('bad_words', 'it is not supported; use logit_bias'),
    Refusal('prompt_logprobs', 'it is not supported'),
    Refusal('suffix', 'text cannot be inserted before a suffix', lambda v: v in (None, '')),
    Refusal('prompt_embeds', 'prompts must be text or token ids'),
    Refusal('documents', 'put the documents into the messages'),
    Refusal('chat_template', 'the template is fixed when the server starts'),
    Refusal('chat_template_kwargs', 'the template is fixed when the server starts'),
    Refusal('reasoning_effort', 'this model has no reasoning levels', lambda v: v in (None, 'none')),
    Refusal('mm_processor_kwargs', 'the model reads text only'),
    Refusal('media_io_kwargs', 'the model reads text only'),
    Refusal('audio', 'the model writes text only'),
    Refusal('modalities', 'the model writes text only', lambda v: v in (None, ['text'])),
    Refusal('functions', 'it was replaced by tools'),
    Refusal('function_call', 'it was replaced by tool_choice', lambda v: v in (None, 'none')),
    Refusal('priority', 'requests are served in order of arrival', lambda v: v in (None, 0)),
)


def refuse_unsupported(body: Body) -> None:
    """Raise 400 for a known field with a value that would change the answer but cannot be honoured."""
    extra = body.model_extra or {}
    for refusal in REFUSED:
        if refusal.field in extra and not refusal.harmless(extra[refusal.field]):
            raise ApiError(f'{refusal.field} was refused: {refusal.reason}.', param=refusal.field)
