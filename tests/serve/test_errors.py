"""A wrong request gets 4xx, an OpenAI body and a sentence that names the field; the next good one is as before."""

import json
import math

import httpx
import openai
import pytest

from tests.served import ServerThread

CHAT, COMPLETIONS = '/v1/chat/completions', '/v1/completions'
HELLO = [{'role': 'user', 'content': 'hi'}]

BROKEN_CALL = {'type': 'function', 'function': {'name': 'f', 'arguments': '{'}}


def tool(name: str, **function) -> dict:
    return {'type': 'function', 'function': {'name': name, **function}}


def named(name: str) -> dict:
    return {'type': 'function', 'function': {'name': name}}


SCHEMA = {'type': 'json_schema'}
BAD_PARAMETERS = {'type': 'object', 'properties': {'x': {'type': 'nope'}}}
# path, body, words of the message
DEEP = {'type': 'function', 'function': {'name': 'f', 'arguments': '{"a":' * 5000 + '1' + '}' * 5000}}
WRONG = [
    (CHAT, {}, 'messages is required'),
    (CHAT, {'messages': []}, 'messages'),
    (CHAT, {'messages': 'hi'}, 'messages'),
    (CHAT, {'messages': ['hi']}, 'messages[0]'),
    (CHAT, {'messages': [{'content': 'hi'}]}, 'messages[0].role'),
    (CHAT, {'messages': [{'role': 'usr', 'content': 'hi'}]}, "did you mean 'user'"),
    (CHAT, {'messages': [{'role': 'user'}]}, 'messages[0].content is required'),
    (CHAT, {'messages': [{'role': 'user', 'content': None}]}, 'messages[0].content is required'),
    (CHAT, {'messages': [{'role': 'user', 'content': 3}]}, 'messages[0].content'),
    (CHAT, {'messages': [{'role': 'user', 'content': 'half \ud83d'}]}, 'surrogate'),
    (
        CHAT,
        {'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {'url': 'x'}}]}]},
        'text only',
    ),
    (CHAT, {'messages': [{'role': 'user', 'content': [{'type': 'text'}]}]}, 'content[0].text'),
    (
        CHAT,
        {'messages': [{'role': 'assistant', 'tool_calls': [{'function': {'name': 'f', 'arguments': '{'}}]}]},
        'JSON',
    ),
    (CHAT, {'messages': [{'role': 'user', 'content': 'x' * 5000}]}, 'context of 512 tokens'),
    (CHAT, {'messages': [None]}, 'messages[0] must be a JSON object, not null.'),
    (CHAT, {'messages': {'role': 'user', 'content': 'hi'}}, 'messages must be a list.'),
    (CHAT, {'messages': HELLO, 'echo': 5}, 'echo must be true or false, not 5.'),
    (CHAT, {'messages': HELLO, 'logprobs': 'all'}, "logprobs must be true or false, not 'all'."),
    (CHAT, {'messages': HELLO, 'top_k': 1.5}, 'top_k must be a whole number, not 1.5.'),
    (CHAT, {'messages': HELLO, 'stop': [1]}, 'stop[0] must be text, not 1.'),
    (CHAT, {'messages': HELLO, 'chat_template_kwargs': []}, 'chat_template_kwargs must be a JSON object.'),
    (CHAT, {'messages': HELLO, 'structured_outputs': {'json': None}}, 'structured_outputs takes exactly one of'),
    (CHAT, {'messages': HELLO, 'max_tokens': 100_000}, 'max_tokens is 100000'),
    (CHAT, {'messages': HELLO, 'max_tokens': 0}, 'max_tokens'),
    (CHAT, {'messages': HELLO, 'max_tokens': 'lots'}, 'max_tokens'),
    (CHAT, {'messages': HELLO, 'max_tokens': 2**70}, 'max_tokens'),
    (CHAT, {'messages': HELLO, 'n': 0}, 'n must be greater than or equal to 1, not 0'),
    (CHAT, {'messages': HELLO, 'n': 10**9}, 'n must be'),
    (CHAT, {'messages': HELLO, 'n': 1.5}, 'n must be'),
    (CHAT, {'messages': HELLO, 'temperature': -1}, 'temperature'),
    (CHAT, {'messages': HELLO, 'temperature': 'hot'}, 'temperature'),
    (CHAT, {'messages': HELLO, 'temperature': math.nan}, 'temperature'),
    (CHAT, {'messages': HELLO, 'temperature': math.inf}, 'temperature'),
    (CHAT, {'messages': HELLO, 'top_p': 0}, 'top_p'),
    (CHAT, {'messages': HELLO, 'top_p': 1.01}, 'top_p'),
    (CHAT, {'messages': HELLO, 'top_k': -2}, 'top_k'),
    (CHAT, {'messages': HELLO, 'presence_penalty': 3}, 'presence_penalty'),
    (CHAT, {'messages': HELLO, 'repetition_penalty': 0}, 'repetition_penalty'),
    (CHAT, {'messages': HELLO, 'seed': 2**64}, 'seed'),
    (CHAT, {'messages': HELLO, 'stop': ['']}, 'stop'),
    (CHAT, {'messages': HELLO, 'stop': 5}, 'stop'),
    (CHAT, {'messages': HELLO, 'stop_token_ids': [320]}, 'outside the vocabulary'),
    (CHAT, {'messages': HELLO, 'stop_token_ids': [-1]}, 'outside the vocabulary'),
    (CHAT, {'messages': HELLO, 'logit_bias': {'99999': 1}}, 'outside the vocabulary'),
    (CHAT, {'messages': HELLO, 'logit_bias': {'a': 1}}, 'not a token id'),
    (CHAT, {'messages': HELLO, 'logit_bias': {'5': 1000}}, '-100 to 100'),
    (CHAT, {'messages': HELLO, 'logprobs': True, 'top_logprobs': 21}, 'the most is 20'),
    (CHAT, {'messages': HELLO, 'top_logprobs': 2}, 'top_logprobs needs logprobs'),
    (CHAT, {'messages': HELLO, 'min_tokens': 9, 'max_tokens': 3}, 'min_tokens'),
    (CHAT, {'messages': HELLO, 'stream_options': {'include_usage': True}}, 'stream_options'),
    (CHAT, {'messages': HELLO, 'continue_final_message': True}, 'continue_final_message'),
    (CHAT, {'messages': HELLO, 'truncate_prompt_tokens': 0}, 'truncate_prompt_tokens'),
    (CHAT, {'messages': HELLO, 'tools': [{'type': 'function'}]}, 'tools[0].function'),
    (CHAT, {'messages': [{'role': 'assistant', 'tool_calls': [DEEP]}]}, 'is not valid JSON'),
    (CHAT, {'messages': HELLO, 'tool_choice': 'required'}, 'tool_choice needs tools'),
    (CHAT, {'messages': HELLO, 'use_beam_search': True}, 'beam search'),
    (CHAT, {'messages': HELLO, 'best_of': 3}, 'best_of'),
    (CHAT, {'messages': HELLO, 'response_format': {'type': 'json_objct'}}, "did you mean 'json_object'"),
    (CHAT, {'messages': HELLO, 'response_format': {'type': 'json_schema'}}, 'response_format.json_schema must be'),
    (CHAT, {'messages': HELLO, 'response_format': SCHEMA | {'json_schema': {'schema': {'type': 5}}}}, 'type must be'),
    (CHAT, {'messages': HELLO, 'structured_outputs': {'regex': '(?<x'}}, 'regex cannot be used'),
    (CHAT, {'messages': HELLO, 'structured_outputs': {'regex': 'a', 'choice': ['b']}}, 'exactly one of'),
    (CHAT, {'messages': HELLO, 'structured_outputs': {'regexp': 'a'}}, "did you mean 'regex'"),
    (CHAT, {'messages': HELLO, 'structured_outputs': {'grammar': 'start: nothing'}}, 'grammar cannot be used'),
    (CHAT, {'messages': HELLO, 'guided_choice': []}, 'guided_choice'),
    (CHAT, {'messages': HELLO, 'guided_json': '{'}, 'json is no valid JSON'),
    (CHAT, {'messages': HELLO, 'guided_regex': 'a', 'response_format': {'type': 'json_object'}}, 'give one'),
    (CHAT, {'messages': HELLO, 'allowed_token_ids': []}, 'allowed_token_ids'),
    (CHAT, {'messages': HELLO, 'allowed_token_ids': [320]}, 'outside the vocabulary'),
    (CHAT, {'messages': HELLO, 'bad_words': ['']}, 'bad_words'),
    (CHAT, {'messages': HELLO, 'bad_words': ['word'] * 5000}, "at most 1024 non-empty texts of Unicode, got ['word',"),
    (CHAT, {'messages': [{'role': 'word ' * 5000}]}, 'role is'),
    (COMPLETIONS, {'prompt': 'a', 'logprobs': 21}, 'the most is 20'),
    (CHAT, {'messages': HELLO, 'reasoning_effort': 'high'}, 'reasoning_effort was refused'),
    (CHAT, {'messages': HELLO, 'chat_template_kwargs': {'enable_thinkin': 1}}, "did you mean 'enable_thinking'"),
    (CHAT, {'messages': HELLO, 'chat_template_kwargs': {'enable_thinking': True}}, 'never thinks'),
    (CHAT, {'messages': HELLO, 'documents': [{'text': 'a'}]}, 'documents was refused'),
    (CHAT, {'messages': HELLO, 'priority': 3}, 'priority was refused'),
    (CHAT, {'messages': HELLO, 'cache_salt': ''}, 'cache_salt'),
    (CHAT, {'messages': HELLO, 'request_id': 'x' * 129}, 'request_id'),
    (CHAT, {'messages': HELLO, 'tools': [tool('a b')]}, 'tools[0].function.name'),
    (CHAT, {'messages': HELLO, 'tools': [tool('a'), tool('a')]}, 'the name of two tools'),
    (CHAT, {'messages': HELLO, 'tools': [tool('a', parameters={'type': 'array'})]}, 'JSON schema of an object'),
    (CHAT, {'messages': HELLO, 'tools': [tool('a', strict='yes')]}, 'strict'),
    (CHAT, {'messages': HELLO, 'tools': [tool('a', description=5)]}, 'tools[0].function.description'),
    (CHAT, {'messages': HELLO, 'tools': [tool('a', parameters={'properties': 5})]}, 'parameters.properties'),
    (CHAT, {'messages': HELLO, 'tools': [tool('a')], 'tool_choice': 'requird'}, "did you mean 'required'"),
    (CHAT, {'messages': HELLO, 'tools': [tool('add')], 'tool_choice': named('ad')}, "did you mean 'add'"),
    (CHAT, {'messages': HELLO, 'tools': [tool('add')], 'tool_choice': {'type': 'function'}}, 'tool_choice must be'),
    (CHAT, {'messages': HELLO, 'tool_choice': named('add')}, 'tool_choice needs tools'),
    (
        CHAT,
        {'messages': HELLO, 'tools': [tool('b'), tool('a', parameters=BAD_PARAMETERS)], 'tool_choice': 'required'},
        'tools[1].function.parameters cannot be used: Invalid type: nope.',
    ),
    (CHAT, {'messages': HELLO, 'tools': [tool('a')], 'guided_regex': 'b'}, 'exclude each other'),
    (COMPLETIONS, {'prompt': 'a', 'max_tokens': 0}, 'that needs echo'),
    (COMPLETIONS, {'prompt': 'a', 'prompt_logprobs': -1}, 'prompt_logprobs'),
    (COMPLETIONS, {}, 'prompt is required'),
    (COMPLETIONS, {'prompt': ''}, 'prompt is empty'),
    (COMPLETIONS, {'prompt': []}, 'non-empty'),
    (COMPLETIONS, {'prompt': [[]]}, 'prompt is empty'),
    (COMPLETIONS, {'prompt': 5}, 'prompt must be'),
    (COMPLETIONS, {'prompt': [1, 'a']}, 'prompt[0]'),
    (COMPLETIONS, {'prompt': {'a': 1}}, 'prompt must be'),
    (COMPLETIONS, {'prompt': [1, 2, 100_000]}, 'prompt[2] is 100000, outside the vocabulary'),
    (COMPLETIONS, {'prompt': [-1]}, 'outside the vocabulary'),
    (COMPLETIONS, {'prompt': [True]}, 'not a token id'),
    (COMPLETIONS, {'prompt': [1.5]}, 'prompt[0]'),
    (COMPLETIONS, {'prompt': 'a\udc80'}, 'surrogate'),
    (COMPLETIONS, {'prompt': [1] * 512}, 'at most 511'),
    (COMPLETIONS, {'prompt': 'a', 'logprobs': 50}, 'the most is 20'),
    (COMPLETIONS, {'prompt': 'a', 'suffix': 'b'}, 'suffix'),
    (COMPLETIONS, {'prompt': ['a'] * 5, 'n': 10_000}, '50000 sequences'),
    ('/tokenize', {}, 'either prompt or messages'),
    ('/tokenize', {'messages': []}, 'messages must not be empty.'),
    ('/detokenize', {'tokens': [400]}, 'outside the vocabulary'),
    ('/v1/load_lora_adapter', {}, 'must be provided'),
    ('/v1/unload_lora_adapter', {}, 'needs to be provided'),
]
RAW = [
    (b'{"messages": ', 'not valid JSON'),
    (b'', 'JSON object'),
    (b'[]', 'JSON object'),
    (b'"text"', 'JSON object'),
    (b'null', 'JSON object'),
    (b'{"messages": ]', 'Expecting value at character 13 (line 1)'),
    (b'{"a": "\xff"}', 'not UTF-8: byte 7 is 0xff'),
    (b'\xff\xfe{}', 'not UTF-8: byte 0 is 0xff'),
    (b'[' * 100_000, 'nested too deeply'),
    (b'{"messages": ' + b'[' * 150 + b']' * 150 + b'}', 'at most 100 levels'),
    (b'{"messages": ' + b'9' * 5000 + b'}', 'too many digits'),
]


def post(url: str, body: dict) -> httpx.Response:
    """As httpx.post(json=…), which refuses NaN and lone surrogates itself."""
    # verify: reading the certificates takes longer than the rest
    headers = {'Content-Type': 'application/json'}
    return httpx.post(url, content=json.dumps(body), headers=headers, verify=False)


def check_error(answer: httpx.Response, status: int = 400) -> dict:
    assert answer.status_code == status, answer.text
    error = answer.json()['error']
    assert set(error) == {'message', 'type', 'param', 'code'}
    assert error['code'] == status
    message = error['message']
    assert message.endswith(('.', '?')) and not message.endswith('?.') and '\n' not in message
    assert max(map(len, message.split())) <= 200, 'what the client sent is not sent back at length'
    assert len(message) <= 4100
    return error


@pytest.fixture(scope='module')
def healthy(server: ServerThread):
    """After the module's wrong requests the server still answers as before, with nothing left in use."""
    body = {'messages': HELLO, 'max_tokens': 8}
    before = httpx.post(server.url + CHAT, json=body).json()['choices']
    yield
    assert httpx.post(server.url + CHAT, json=body).json()['choices'] == before
    assert httpx.get(f'{server.url}/health').status_code == 200
    stats = server.stats()
    assert stats['blocks_used'] == stats['num_running'] == stats['num_waiting'] == 0


@pytest.mark.usefixtures('healthy')
@pytest.mark.parametrize(('path', 'body', 'words'), WRONG, ids=lambda value: str(value)[:60])
def test_wrong_fields(server: ServerThread, path: str, body: dict, words: str) -> None:
    for extra in [{}, {'stream': True}] if path.endswith('completions') and 'stream_options' not in body else [{}]:
        answer = post(server.url + path, body | extra)
        assert words in check_error(answer)['message']


@pytest.mark.usefixtures('healthy')
@pytest.mark.parametrize(('content', 'words'), RAW, ids=range(len(RAW)))
def test_wrong_bodies(server: ServerThread, content: bytes, words: str) -> None:
    answer = httpx.post(server.url + CHAT, content=content, headers={'Content-Type': 'application/json'})
    assert words in check_error(answer)['message']


@pytest.mark.usefixtures('healthy')
def test_wrong_content_type(server: ServerThread) -> None:
    check_error(httpx.post(server.url + CHAT, content='{}', headers={'Content-Type': 'text/plain'}))


def test_a_form_that_cannot_be_used_names_its_field(server: ServerThread) -> None:
    broken = {'type': 'json_schema', 'json_schema': {'name': 'a', 'schema': {'type': 'objekt'}}}
    ebnf = {'guided_grammar': 'root ::= "a" nothing'}
    for path, body in [(CHAT, {'messages': HELLO}), (COMPLETIONS, {'prompt': 'a'})]:
        answer = check_error(post(server.url + path, body | {'response_format': broken}))
        assert answer['param'] == 'response_format' and 'objekt' in answer['message']
        answer = check_error(post(server.url + path, body | ebnf))
        assert answer['param'] == 'guided_grammar' and 'EBNF' in answer['message']


# JSON within JSON
CALL = {'role': 'assistant', 'tool_calls': [{'function': {'name': 'f', 'arguments': '{"a": "\\ud800"}'}}]}


@pytest.mark.usefixtures('healthy')
@pytest.mark.parametrize(
    ('path', 'body', 'param'),
    [
        (CHAT, {'bad_words': ['a', '\ud800']}, 'bad_words[1]'),
        (CHAT, {'guided_regex': '\udfff+'}, 'guided_regex'),
        (CHAT, {'guided_json': {'properties': {'a': {'enum': ['\ud83d!']}}}}, 'guided_json.properties.a.enum[0]'),
        (CHAT, {'stop': '\ude00\ud83d'}, 'stop'),
        (CHAT, {'model': '\ud800'}, 'model'),
        (CHAT, {'messages': [*HELLO, CALL]}, 'messages[1].tool_calls[0]'),
        (CHAT, {'chat_template_kwargs': {'\ud800': 1}}, 'chat_template_kwargs'),
        (CHAT, {'\ud800': 1}, None),
        ('/v1/load_lora_adapter', {'lora_name': 'a\ud800', 'lora_path': '/tmp'}, 'lora_name'),
    ],
)
def test_text_that_is_no_unicode_names_its_field(server: ServerThread, path: str, body: dict, param: str) -> None:
    error = check_error(post(server.url + path, {'messages': HELLO} | body))
    assert 'half of a surrogate pair' in error['message'] and error['param'] == param


def test_a_whole_surrogate_pair_is_text(server: ServerThread) -> None:
    body = {'messages': [{'role': 'user', 'content': '\U0001f600'}], 'bad_words': ['\U0001f600'], 'max_tokens': 2}
    assert '\\ud83d\\ude00' in json.dumps(body)
    assert post(server.url + CHAT, body).status_code == 200


def test_unknown_names(server: ServerThread) -> None:
    for path, body in [(CHAT, {'messages': HELLO}), (COMPLETIONS, {'prompt': 'a'}), ('/tokenize', {'prompt': 'a'})]:
        error = check_error(httpx.post(server.url + path, json=body | {'model': 'tuner-b'}), 404)
        assert error['param'] == 'model'
        assert 'tiny-model, tuner-a' in error['message'] and "did you mean 'tuner-a'" in error['message']
    check_error(post(server.url + CHAT, {'messages': HELLO, 'model': 'x' * 5000}), 404)
    check_error(httpx.get(f'{server.url}/v1/nothing'), 404)
    check_error(httpx.get(server.url + CHAT), 405)


def test_openai_client_sees_the_reason(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match='temperature') as caught:
        client.chat.completions.create(model='tiny-model', messages=HELLO, temperature=-3)
    assert caught.value.param == 'temperature'
    with pytest.raises(openai.NotFoundError, match='tiny-model'):
        client.chat.completions.create(model='gpt-4o', messages=HELLO)


def test_unknown_fields_are_accepted(server: ServerThread) -> None:
    body = {'messages': HELLO, 'max_tokens': 2, 'store': True, 'metadata': {'a': '1'}, 'anything': [1]}
    harmless = {'response_format': {'type': 'text'}, 'best_of': 1, 'priority': 0, 'tool_choice': 'none'}
    assert httpx.post(server.url + CHAT, json=body | harmless).status_code == 200
