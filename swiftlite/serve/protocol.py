"""Request bodies of the OpenAI endpoints, with vLLM's extra fields (vLLM 0.24 names and ranges).

Unknown fields are accepted, as OpenAI and vLLM do; null stands for a field's default. A known field is either honoured
or answered with 400 and the reason (`refused.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from swiftlite.serve import shapes

MAX_N = 16384
INT64 = 2**63

Messages = Annotated[list[dict[str, Any]], WithJsonSchema(shapes.MESSAGES)]
Tools = Annotated[list[dict[str, Any]], WithJsonSchema(shapes.TOOLS)]


class Body(BaseModel):
    model_config = ConfigDict(extra='allow', allow_inf_nan=False)

    @model_validator(mode='before')
    @classmethod
    def _null_is_the_default(cls, data: Any) -> Any:
        return {key: value for key, value in data.items() if value is not None} if isinstance(data, dict) else data


class StreamOptions(Body):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class TemplateOptions(Body):
    """What `chat_template_kwargs` may hold; the template refuses what it cannot do."""

    enable_thinking: bool | None = None

    @property
    def unknown(self) -> list[str]:
        return sorted(self.model_extra or ())


class GenerationBody(Body):
    """What chat and text completions share."""

    model: str | None = Field(None, description="a name of /v1/models; the base model's without it")
    n: int = Field(1, ge=1, le=MAX_N, description='answers to each prompt')
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=INT64)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(None, description='token id → what is added to its logit, ±100')
    allowed_token_ids: list[int] | None = Field(None, min_length=1, description='no other tokens are chosen')
    bad_words: list[str] | None = Field(None, description='texts that are never written')
    seed: int | None = Field(None, ge=-INT64, lt=INT64)
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = Field(0, ge=0, lt=INT64)
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    prompt_logprobs: int | None = Field(None, ge=0, description='as many for each prompt token; not with stream')
    truncate_prompt_tokens: int | None = Field(None, ge=-1, lt=INT64, description='tokens that are kept; -1: what fits')
    truncation_side: Literal['left', 'right'] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: Annotated[dict[str, Any], WithJsonSchema(shapes.RESPONSE_FORMAT)] | None = None
    structured_outputs: Annotated[dict[str, Any], WithJsonSchema(shapes.STRUCTURED_OUTPUTS)] | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = Field(None, min_length=1)
    guided_grammar: str | None = None
    guided_json_object: bool = False
    guided_whitespace_pattern: str | None = None
    request_id: str | None = Field(None, min_length=1, max_length=128)
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool = False
    cache_salt: str | None = Field(None, min_length=1, description='prompts share their cache with the same salt only')
    user: str | None = None

    @field_validator('stop')
    @classmethod
    def _stop_is_a_list(cls, stop: str | list[str] | None) -> list[str] | None:
        stops = [stop] if isinstance(stop, str) else stop
        if stops and not all(stops):
            raise ValueError('hold no empty string')
        return stops


class ChatBody(GenerationBody):
    """POST /v1/chat/completions. `messages` are checked in `messages.py`, which words its errors well."""

    messages: Messages = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, lt=INT64)
    max_completion_tokens: int | None = Field(None, ge=1, lt=INT64)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0)
    tools: Tools | None = None
    tool_choice: Annotated[str | dict[str, Any], WithJsonSchema(shapes.TOOL_CHOICE)] | None = None
    parallel_tool_calls: bool = True
    echo: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: TemplateOptions | None = None
    reasoning_effort: str | None = None


class CompletionBody(GenerationBody):
    """POST /v1/completions. `prompt`: a text, a list of token ids, or a list of either."""

    prompt: Annotated[Any, WithJsonSchema(shapes.PROMPT)]
    max_tokens: int | None = Field(None, ge=0, lt=INT64, description='16 without it; 0 with echo: only the prompt')
    logprobs: int | None = Field(None, ge=0)
    echo: bool = False
    add_special_tokens: bool = True


class TokenizeBody(Body):
    """POST /tokenize: either `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = Field(None, min_length=1)
    tools: Tools | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: TemplateOptions | None = None
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
