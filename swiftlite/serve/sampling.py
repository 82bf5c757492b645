"""Request fields → `SamplingParams`: the request wins, then the template's stops, then the checkpoint's defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from swiftlite.engine.errors import RequestError
from swiftlite.engine.grammar.compiler import check_structured_outputs
from swiftlite.engine.grammar.params import StructuredOutputsParams
from swiftlite.engine.sampling_params import MAX_LOGPROBS, SamplingParams
from swiftlite.serve.errors import ApiError
from swiftlite.serve.protocol import GenerationBody

if TYPE_CHECKING:
    from swiftlite.serve.service import Service

# Fields with the same name and meaning in SamplingParams; None means the checkpoint's default.
DEFAULTED = ('temperature', 'top_p', 'top_k', 'min_p', 'repetition_penalty', 'frequency_penalty', 'presence_penalty')

Refusal = Callable[[str], ApiError]


def sampling_params(
    body: GenerationBody,
    *,
    defaults: dict[str, Any],
    max_tokens: int,
    logprobs: int | None,
    vocab_size: int,
    structure: StructuredOutputsParams | None = None,
    prompt_logprobs: int | None = None,
    max_logprobs: int = MAX_LOGPROBS,
    template_stops: tuple[tuple[str, ...], tuple[int, ...]] = ((), ()),
) -> SamplingParams:
    """The parameters of one sample. `template_stops`: stop strings and ids that end a turn; `ignore_eos` lifts them.

    Raises ApiError (400) for token ids outside the vocabulary and for what SamplingParams itself refuses.
    """
    values = {name: defaults[name] for name in DEFAULTED if name in defaults}
    values |= {name: value for name in DEFAULTED if (value := getattr(body, name)) is not None}
    stop_strings, stop_ids = ((), ()) if body.ignore_eos else template_stops
    check_token_ids(body.stop_token_ids or [], vocab_size, 'stop_token_ids')
    check_token_ids(body.allowed_token_ids or [], vocab_size, 'allowed_token_ids')
    for name, count in (('logprobs', logprobs), ('prompt_logprobs', prompt_logprobs)):
        if count is not None and 0 <= max_logprobs < count:
            raise ApiError(f'{count} {name} a token were asked for; the most is {max_logprobs}.', param=name)
    if body.min_tokens > max_tokens:
        raise ApiError(f'min_tokens ({body.min_tokens}) is larger than max_tokens ({max_tokens}).', param='min_tokens')
    try:
        return SamplingParams(
            **values,
            seed=body.seed,
            stop=[*(body.stop or []), *defaults.get('stop', []), *stop_strings],
            stop_token_ids=[*(body.stop_token_ids or []), *stop_ids],
            include_stop_str_in_output=body.include_stop_str_in_output,
            ignore_eos=body.ignore_eos,
            max_tokens=max_tokens,
            min_tokens=body.min_tokens,
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            logit_bias=_logit_bias(body.logit_bias, vocab_size),
            allowed_token_ids=body.allowed_token_ids,
            bad_words=body.bad_words,
            skip_special_tokens=body.skip_special_tokens,
            spaces_between_special_tokens=body.spaces_between_special_tokens,
            structured_outputs=structure,
        )
    except RequestError as error:
        raise ApiError(str(error)) from None


async def check_sampling(params: SamplingParams, service: Service, refuse: Refusal = ApiError) -> None:
    """ApiError for what only shows with the tokenizer: bad words without tokens, a grammar that cannot be used.

    `refuse` words the latter.
    """
    try:
        params.update_from_tokenizer(service.engine.tokenizer)
    except RequestError as error:
        raise ApiError(str(error)) from None
    if params.structure is None:
        return
    try:
        compiling = check_structured_outputs(params.structure, service.engine.tokenizer)
        if compiling is not None:
            await asyncio.wrap_future(compiling)
    except RequestError as error:
        raise refuse(str(error)) from None


def sample(params: SamplingParams, index: int) -> SamplingParams:
    """Parameters of sample `index` of n: the same but for the seed, which counts up so that samples differ."""
    if params.seed is None or index == 0:
        return params
    return replace(params, seed=(params.seed + index + 2**63) % 2**64 - 2**63)


def check_token_ids(ids: list[int], vocab_size: int, param: str) -> None:
    for position, token in enumerate(ids):
        if isinstance(token, bool) or not isinstance(token, int):
            raise ApiError(f'{param}[{position}] is {token!r}, not a token id.', param=param)
        if not 0 <= token < vocab_size:
            raise ApiError(
                f'{param}[{position}] is {token}, outside the vocabulary (valid are 0 to {vocab_size - 1}).',
                param=param,
            )


def token_budget(
    prompt_tokens: int, wanted: int | None, max_model_len: int, default: int | None = None, param: str = 'messages'
) -> int:
    """Tokens that may be generated: `wanted` as asked, else `default`, else all that the context has left."""
    left = max_model_len - prompt_tokens
    if left < 1:
        raise ApiError(
            f"The prompt has {prompt_tokens} tokens; this model's context of {max_model_len} tokens leaves room for at "
            f'most {max_model_len - 1}.',
            param=param,
        )
    if wanted is None:
        return left if default is None else min(default, left)
    if wanted > left:
        raise ApiError(
            f'max_tokens is {wanted}, but a prompt of {prompt_tokens} tokens leaves {left} of the context of '
            f'{max_model_len} tokens.',
            param='max_tokens',
        )
    return wanted


def _logit_bias(bias: dict[str, float] | None, vocab_size: int) -> dict[int, float] | None:
    if not bias:
        return None
    result = {}
    for key, value in bias.items():
        try:
            token = int(key)
        except ValueError:
            raise ApiError(f'logit_bias has the key {key!r}, which is not a token id.', param='logit_bias') from None
        check_token_ids([token], vocab_size, 'logit_bias')
        if not -100 <= value <= 100:
            raise ApiError(f'logit_bias of token {token} is {value}; valid are -100 to 100.', param='logit_bias')
        result[token] = value
    return result
