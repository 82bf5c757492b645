"""The request fields, one by one, through the official client."""

import json
import re

import httpx
import openai
import pydantic
import pytest

from swiftlite.serve import responses
from tests.served import ServerThread

HELLO = [{'role': 'user', 'content': 'Hello there!'}]
BASE = {'model': 'tiny-model', 'max_tokens': 8}


def chat(client: openai.OpenAI, messages: list | None = None, **options):
    extra = options.pop('extra_body', {})
    return client.chat.completions.create(messages=messages or HELLO, **BASE | options, extra_body=extra)


def complete(client: openai.OpenAI, prompt='Hello', **options):
    extra = options.pop('extra_body', {})
    return client.completions.create(prompt=prompt, **BASE | options, extra_body=extra)


def token_ids(answer) -> list[int]:
    return answer.choices[0].token_ids


@pytest.mark.parametrize('ask', [chat, complete])
def test_allowed_and_forbidden_tokens(client: openai.OpenAI, ask) -> None:
    allowed = [70, 71, 72]
    answer = ask(client, extra_body={'allowed_token_ids': allowed, 'return_token_ids': True}, temperature=1, seed=1)
    assert len(token_ids(answer)) == 8 and set(token_ids(answer)) <= set(allowed)
    plain = ask(client, extra_body={'return_token_ids': True, 'ignore_eos': True})
    text = plain.choices[0].text if ask is complete else plain.choices[0].message.content
    word = re.findall('[a-zA-Z0-9]', text)[0]
    without = ask(client, extra_body={'bad_words': [word], 'ignore_eos': True})
    assert word not in (without.choices[0].text if ask is complete else without.choices[0].message.content)
    biased = ask(client, logit_bias={'75': 100}, extra_body={'return_token_ids': True})
    assert token_ids(biased) == [75] * 8


def test_penalties_change_the_answer(client: openai.OpenAI) -> None:
    options = {'max_tokens': 60, 'extra_body': {'ignore_eos': True, 'return_token_ids': True}}
    plain = token_ids(chat(client, **options))
    for penalty in ({'presence_penalty': 2}, {'frequency_penalty': 2}):
        assert len(set(token_ids(chat(client, **options, **penalty)))) > len(set(plain))
    repeated = options['extra_body'] | {'repetition_penalty': 1.8}
    assert len(set(token_ids(chat(client, **options | {'extra_body': repeated})))) > len(set(plain))


def test_min_tokens_and_ignore_eos(client: openai.OpenAI) -> None:
    end = {'logit_bias': {'2': 100}}  # the end token
    assert chat(client, **end).usage.completion_tokens == 1
    kept = chat(client, **end, extra_body={'min_tokens': 5})
    assert kept.usage.completion_tokens == 6 and kept.choices[0].finish_reason == 'stop'
    assert chat(client, **end, extra_body={'ignore_eos': True}).choices[0].finish_reason == 'length'


def test_special_tokens_in_the_text(client: openai.OpenAI) -> None:
    options = {'logit_bias': {'1': 100}, 'max_tokens': 2}  # <|im_start|>
    assert complete(client, **options).choices[0].text == ''
    shown = complete(client, **options, extra_body={'skip_special_tokens': False}).choices[0].text
    assert shown.replace(' ', '') == '<|im_start|>' * 2


@pytest.mark.parametrize('path', ['chat/completions', 'completions'])
def test_prompt_logprobs(server: ServerThread, path: str) -> None:
    body = {'messages': HELLO, 'prompt': 'Hello there', 'max_tokens': 2, 'prompt_logprobs': 2, 'return_token_ids': True}
    answer = httpx.post(f'{server.url}/v1/{path}', json=body).json()
    where = answer if path.startswith('chat') else answer['choices'][0]
    first, *rest = where['prompt_logprobs']
    assert first is None and len(rest) == len(where['prompt_token_ids']) - 1
    for token, step in zip(where['prompt_token_ids'][1:], rest, strict=True):
        assert str(token) in step and 2 <= len(step) <= 3
        assert {entry['rank'] for entry in step.values()} >= {1, 2}
    streamed = httpx.post(f'{server.url}/v1/{path}', json=body | {'stream': True})
    assert streamed.status_code == 400 and 'prompt_logprobs' in streamed.json()['error']['message']


def test_echo_with_logprobs(client: openai.OpenAI) -> None:
    """As harnesses score a text: no new token, a probability for each of the prompt but the first."""
    prompts = ['Hello there!', '12345']
    scored = complete(client, prompts, echo=True, logprobs=1, max_tokens=0)
    assert scored.usage.completion_tokens == 0
    for text, choice in zip(prompts, scored.choices, strict=True):
        lists = choice.logprobs
        assert choice.text == ''.join(lists.tokens) == text and choice.finish_reason == 'length'
        assert lists.token_logprobs[0] is None and all(value < 0 for value in lists.token_logprobs[1:])
        assert lists.text_offset == [len(''.join(lists.tokens[:i])) for i in range(len(lists.tokens))]
    more = complete(client, prompts, echo=True, logprobs=1, max_tokens=3)
    parts: dict[int, list[str]] = {0: [], 1: []}
    for chunk in complete(client, prompts, echo=True, logprobs=1, max_tokens=3, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.logprobs.tokens if choice.logprobs else []
    for one, two in zip(scored.choices, more.choices, strict=True):
        known = len(one.logprobs.tokens)
        assert two.logprobs.token_logprobs[:known] == one.logprobs.token_logprobs
        assert parts[two.index] == two.logprobs.tokens and two.text.startswith(one.text)


def test_ids_of_request_and_header(client: openai.OpenAI, server: ServerThread) -> None:
    assert chat(client, extra_body={'request_id': 'mine'}).id == 'chatcmpl-mine'
    assert chat(client, extra_headers={'X-Request-Id': 'theirs'}).id == 'chatcmpl-theirs'
    named = chat(client, extra_body={'request_id': 'mine'}, extra_headers={'X-Request-Id': 'theirs'})
    assert named.id == 'chatcmpl-mine', 'the body wins'
    assert len({complete(client).id for _ in range(3)}) == 3


def test_a_salt_keeps_caches_apart(client: openai.OpenAI) -> None:
    long = [{'role': 'user', 'content': 'a salt keeps caches apart ' * 6}]

    def cached(**extra: str) -> int:
        return chat(client, long, extra_body=extra).usage.prompt_tokens_details.cached_tokens

    assert cached(cache_salt='one') == 0 and cached(cache_salt='one') > 0
    assert cached(cache_salt='two') == 0 and cached() == 0


def test_tokens_named_by_id(client: openai.OpenAI) -> None:
    named = chat(client, logprobs=True, top_logprobs=2, extra_body={'return_tokens_as_token_ids': True})
    plain = chat(client, logprobs=True, top_logprobs=2, extra_body={'return_token_ids': True})
    ids = [token.token for token in named.choices[0].logprobs.content]
    assert ids == [f'token_id:{token}' for token in token_ids(plain)]


def test_streams_carry_ids_and_running_usage(client: openai.OpenAI) -> None:
    options = {'stream': True, 'stream_options': {'include_usage': True, 'continuous_usage_stats': True}}
    for ask in (chat, complete):
        chunks = list(ask(client, **options, extra_body={'return_token_ids': True}))
        whole = ask(client, extra_body={'return_token_ids': True})
        assert [t for c in chunks for choice in c.choices for t in getattr(choice, 'token_ids', [])] == token_ids(whole)
        counts = [chunk.usage.completion_tokens for chunk in chunks]
        assert counts == sorted(counts) and counts[-1] == whole.usage.completion_tokens
        assert chunks[-1].choices == []
        head = chunks[0] if ask is chat else chunks[0].choices[0]
        assert head.prompt_token_ids == (whole if ask is chat else whole.choices[0]).prompt_token_ids


@pytest.mark.parametrize('ask', [chat, complete])
def test_null_stands_for_the_default(server: ServerThread, ask) -> None:
    path = 'chat/completions' if ask is chat else 'completions'
    body = {'messages': HELLO} if ask is chat else {'prompt': 'Hello'}
    nulls = dict.fromkeys(('n', 'stream', 'stop', 'seed', 'echo', 'logprobs', 'tools', 'stream_options', 'min_tokens'))
    answers = [httpx.post(f'{server.url}/v1/{path}', json=body | extra) for extra in ({}, nulls)]
    first, second = (answer.json()['choices'] for answer in answers)
    assert first == second


def test_many_samples_are_bounded(client: openai.OpenAI) -> None:
    many = chat(client, n=64, max_tokens=2, temperature=1, seed=3)
    assert sorted(choice.index for choice in many.choices) == list(range(64))
    with pytest.raises(openai.BadRequestError, match='n must be less than or equal to 16384'):
        chat(client, n=16385)


def test_harmless_values_of_refused_fields(client: openai.OpenAI) -> None:
    neutral = {'best_of': 1, 'use_beam_search': False, 'length_penalty': 1.0, 'priority': 0, 'documents': None}
    neutral |= {'reasoning_effort': 'none', 'response_format': {'type': 'text'}, 'suffix': '', 'modalities': ['text']}
    assert chat(client, extra_body=neutral).choices == chat(client).choices


def test_responses_are_as_documented(server: ServerThread) -> None:
    extra = {'max_tokens': 3, 'return_token_ids': True, 'prompt_logprobs': 1, 'n': 2}
    answer = httpx.post(
        f'{server.url}/v1/chat/completions', json={'messages': HELLO, 'logprobs': True, 'top_logprobs': 1} | extra
    )
    made = responses.ChatCompletion.model_validate_json(answer.text, strict=True)
    assert made.model_dump(exclude_unset=True) == answer.json()
    answer = httpx.post(f'{server.url}/v1/completions', json={'prompt': 'Hello', 'logprobs': 1, 'echo': True} | extra)
    made = responses.Completion.model_validate_json(answer.text, strict=True)
    assert made.model_dump(exclude_unset=True) == answer.json()
    cards = httpx.get(f'{server.url}/v1/models')
    assert responses.ModelList.model_validate_json(cards.text).model_dump() == cards.json()
    error = httpx.get(f'{server.url}/v1/nothing')
    assert responses.ErrorReply.model_validate_json(error.text).model_dump() == error.json()


STRUCTURES = [
    ({'response_format': {'type': 'json_object'}, 'max_tokens': 60}, None),
    ({'structured_outputs': {'regex': '[a-c]{3,5}z'}}, '[a-c]{3,5}z'),
    ({'guided_regex': '[0-9]{2}'}, '[0-9]{2}'),
    ({'structured_outputs': {'choice': ['yes', 'no', '你好']}}, 'yes|no|你好'),
    ({'guided_choice': ['left', 'right']}, 'left|right'),
    ({'structured_outputs': {'grammar': 'start: "x" /[0-9]{1,3}/ "y"'}}, 'x[0-9]{1,3}y'),
    ({'guided_grammar': 'start: "(" ("a" | "b")~2 ")"'}, r'\([ab]{2}\)'),
    ({'guided_json': '{"type": "integer", "minimum": 10, "maximum": 99}'}, '[0-9]{2}'),
    ({'structured_outputs': {'json': {'enum': ['a', 7]}}}, '"a"|7'),
    (
        {'guided_json': {'type': 'array', 'items': {'const': 1}, 'minItems': 2, 'maxItems': 2}}
        | {'guided_whitespace_pattern': ' ?'},
        r'\[ ?1 ?, ?1 ?\]',
    ),
]


@pytest.mark.parametrize(('extra', 'pattern'), STRUCTURES, ids=lambda value: str(value)[:50])
def test_structured_output(client: openai.OpenAI, extra: dict, pattern: str | None) -> None:
    """A random model writes what the structure says, and nothing else."""
    options = {'temperature': 1.0, 'seed': 5, 'n': 3, 'max_tokens': 40} | extra
    limit = options.pop('max_tokens')
    fields = {'max_tokens': limit, **{key: options.pop(key) for key in ('temperature', 'seed', 'n')}}
    whole = chat(client, **fields, extra_body=options)
    streamed = {0: '', 1: '', 2: ''}
    for chunk in chat(client, **fields, extra_body=options, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ''
    texts = [choice.text for choice in complete(client, **fields, extra_body=options).choices]
    for choice in whole.choices:
        assert streamed[choice.index] == choice.message.content
        texts.append(choice.message.content)
    for text in texts:
        if pattern is None:
            assert text.startswith('{')
        else:
            assert re.fullmatch(pattern, text), text


def test_json_schema_of_the_client(client: openai.OpenAI) -> None:
    schema = {
        'type': 'object',
        'properties': {'name': {'type': 'string', 'maxLength': 8}, 'age': {'type': 'integer', 'maximum': 120}},
        'required': ['name', 'age'],
        'additionalProperties': False,
    }
    response_format = {'type': 'json_schema', 'json_schema': {'name': 'person', 'schema': schema, 'strict': True}}
    answer = chat(client, response_format=response_format, max_tokens=120, temperature=1, seed=2).choices[0]
    person = json.loads(answer.message.content)
    assert set(person) == {'name', 'age'} and len(person['name']) <= 8 and answer.finish_reason == 'stop'


def test_helpers_of_the_client(tiny_chat: openai.OpenAI) -> None:
    """`parse` takes a class for a schema and gives an object of it; `stream` puts a stream together."""

    class Person(pydantic.BaseModel):
        name: str
        age: int

    question = 'Anna Weber is 34 years old and lives in Berlin. Give me name, age as JSON.'
    options = {'model': 'tiny-model', 'messages': [{'role': 'user', 'content': question}], 'response_format': Person}
    person = tiny_chat.chat.completions.parse(**options).choices[0].message.parsed
    assert person == Person(name='Anna Weber', age=34)
    with tiny_chat.chat.completions.stream(**options) as events:
        kinds = [event.type for event in events]
        final = events.get_final_completion()
    assert final.choices[0].message.parsed == person and 'content.done' in kinds
    parameters = {'type': 'object', 'properties': {'city': {'type': 'string'}}, 'required': ['city']}
    parameters['additionalProperties'] = False
    function = {'name': 'get_weather', 'parameters': parameters, 'strict': True}
    ask = {'model': 'tiny-model', 'messages': [{'role': 'user', 'content': "What's the weather in Paris?"}]}
    with tiny_chat.chat.completions.stream(**ask, tools=[{'type': 'function', 'function': function}]) as events:
        (call,) = events.get_final_completion().choices[0].message.tool_calls
    assert call.function.parsed_arguments == {'city': 'Paris'}


def test_forced_calls_of_a_tokenizer_that_hides_their_marks(client: openai.OpenAI) -> None:
    """<tool_call> is a special token here, which text leaves out: calls are found nevertheless, by any model."""
    parameters = {'type': 'object', 'properties': {'a': {'type': 'boolean'}}, 'required': ['a']}
    tools = [{'type': 'function', 'function': {'name': 'f', 'parameters': parameters}}]
    for stream in (False, True):
        options = {'tools': tools, 'tool_choice': 'required', 'max_tokens': None, 'parallel_tool_calls': False}
        answer = chat(client, **options, stream=stream)
        made = [c.choices[0].delta for c in answer] if stream else [answer.choices[0].message]
        (call,) = (call for part in made for call in part.tool_calls or [])
        assert call.function.name == 'f' and isinstance(json.loads(call.function.arguments)['a'], bool)
