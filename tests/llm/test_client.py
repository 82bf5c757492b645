"""ms-swift's client functions against a server of its own process."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from swiftlite.errors import SwiftliteError, UsageError
from swiftlite.llm import (
    ServerError,
    XRequestConfig,
    get_model_list_client,
    get_model_list_client_async,
    inference,
    inference_client,
    inference_client_async,
)
from tests.llm.conftest import MAX_MODEL_LEN

GREEDY = XRequestConfig(temperature=0)
STREAM = XRequestConfig(temperature=0, stream=True)
QUESTION = ('你是谁？', [['hi', 'Hello!']], 'Be brief.')


@pytest.fixture(scope='module')
def expected(engine, template) -> str:
    query, history, system = QUESTION
    return inference(engine, template, [{'query': query, 'history': history, 'system': system}])[0]['response']


def test_the_client_imports_no_torch():
    code = (
        'import sys\n'
        'from swiftlite.llm import XRequestConfig, inference_client, inference_client_async, get_model_list_client\n'
        'assert not {"torch", "transformers", "fastapi", "pydantic"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


async def test_model_list(port):
    models = get_model_list_client('127.0.0.1', port)
    assert [model.id for model in models.data] == ['tiny-chat', 'qwen2-7b', 'tone']
    assert models.data[0].max_model_len == MAX_MODEL_LEN and models.data[0].parent is None
    assert await get_model_list_client_async(port=port) == models


async def test_the_answer_is_the_one_in_process(port, expected):
    answer = inference_client('tiny-chat', *QUESTION, request_config=GREEDY, port=port)
    assert answer.object == 'chat.completion' and answer.model == 'tiny-chat'
    assert answer.choices[0].message.content == expected and answer.choices[0].finish_reason == 'stop'
    assert answer.choices[0].message.tool_calls is None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.to_dict()['choices'][0]['message']['content'] == expected
    with pytest.raises(AttributeError, match="no 'chioces'"):
        answer.chioces  # noqa: B018
    waited = await inference_client_async('tiny-chat', *QUESTION, request_config=GREEDY, port=port)
    assert waited.choices == answer.choices


async def test_a_stream_adds_up_to_the_answer(port, expected):
    chunks = list(inference_client('tiny-chat', *QUESTION, request_config=STREAM, port=port))
    assert len(chunks) > 5 and {chunk.object for chunk in chunks} == {'chat.completion.chunk'}
    assert ''.join(chunk.choices[0].delta.content for chunk in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == 'stop'
    stream = await inference_client_async('tiny-chat', *QUESTION, request_config=STREAM, port=int(port))
    assert ''.join([chunk.choices[0].delta.content async for chunk in stream]) == expected


def test_a_stream_that_is_left_ends_the_request(port):
    stream = inference_client(
        'tiny-chat', 'hi', request_config=XRequestConfig(stream=True, ignore_eos=True, n=8), port=port
    )
    next(stream)
    stream.close()
    deadline = time.monotonic() + 60
    while 'num_requests_running{' in (text := httpx.get(f'http://127.0.0.1:{port}/metrics').text):
        if all(line.endswith(' 0.0') for line in text.splitlines() if 'num_requests_running{' in line):
            break
        assert time.monotonic() < deadline
    else:
        raise AssertionError('the server does not say what runs')


def test_an_adapter_answers_by_its_name(port):
    config = XRequestConfig(temperature=0, max_tokens=8)
    base = inference_client('tiny-chat', 'hello', request_config=config, port=port)
    tuned = inference_client('tiny-chat', 'hello', request_config=config, port=port, adapter_name='tone')
    assert tuned.model == 'tone' and tuned.choices[0].message.content != base.choices[0].message.content


async def test_a_base_model_continues_a_text(port):
    whole = inference_client('qwen2-7b', 'I am tiny', request_config=GREEDY, port=port)
    assert whole.object == 'text_completion'
    chunks = list(inference_client('qwen2-7b', 'I am tiny', request_config=STREAM, port=port))
    assert ''.join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text
    stream = await inference_client_async('qwen2-7b', 'I am tiny', request_config=STREAM, port=port)
    assert ''.join([chunk.choices[0].text async for chunk in stream]) == whole.choices[0].text
    forced = inference_client('tiny-chat', 'I am tiny', request_config=GREEDY, port=port, is_chat_request=False)
    assert forced.choices == whole.choices
    with pytest.raises(UsageError, match="'qwen2-7b' is a base model"):
        inference_client('qwen2-7b', 'I am', [['a', 'b']], port=port)


@pytest.mark.parametrize('name', ['qwen2-7b', 'tiny-chat'])
async def test_without_max_tokens_the_context_is_the_limit(port, name):
    config = XRequestConfig(temperature=0, ignore_eos=True)
    usage = inference_client(name, 'I am tiny', request_config=config, port=port).usage
    assert usage.total_tokens == MAX_MODEL_LEN
    assert (await inference_client_async(name, 'I am tiny', request_config=config, port=port)).usage == usage


def test_every_field_reaches_the_server(port):
    def texts(**config) -> list[str]:
        answer = inference_client('tiny-chat', 'who are you?', request_config=XRequestConfig(**config), port=port)
        return [choice.message.content for choice in answer.choices]

    (greedy,) = texts(temperature=0)
    hot = texts(temperature=5, seed=1, n=3, max_tokens=12)
    assert len(set(hot)) == 3 and texts(temperature=5, seed=1, n=3, max_tokens=12) == hot
    for only_the_best in ({'top_k': 1}, {'top_p': 1e-6}, {'min_p': 1}):
        assert texts(temperature=5, **only_the_best) == [greedy]
    assert texts(temperature=0, stop='assist') == texts(temperature=0, stop=['assist']) == [greedy.split('assist')[0]]
    assert texts(temperature=0, repetition_penalty=2.0) != [greedy]
    penalties = {'frequency_penalty': 1.5, 'presence_penalty': -1.5}
    assert XRequestConfig(**penalties).body() == {'n': 1, 'stream': False} | penalties
    answer = inference_client(
        'tiny-chat', 'hi', request_config=XRequestConfig(logprobs=True, top_logprobs=2, max_tokens=1), port=port
    )
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


@pytest.mark.parametrize('stream', [False, True])
async def test_a_refusal_is_the_servers_sentence(port, stream):
    config = XRequestConfig(stream=stream)
    with pytest.raises(ServerError, match=r'tiny-chatt.*does not exist.*tiny-chat') as error:
        list(inference_client('tiny-chatt', 'hi', request_config=config, port=port))
    assert error.value.status == 404
    with pytest.raises(ServerError, match='length_penalty was refused'):
        config = XRequestConfig(stream=stream, length_penalty=2)
        answer = await inference_client_async('tiny-chat', 'hi', request_config=config, port=port)
        [chunk async for chunk in answer]


def test_what_is_refused_before_it_is_sent():
    with pytest.raises(UsageError, match="'images' cannot be answered"):
        inference_client('tiny-chat', 'hi', images=['a.png'])
    with pytest.raises(UsageError, match='num_beams is 4'):
        inference_client('tiny-chat', 'hi', request_config=XRequestConfig(num_beams=4))
    with pytest.raises(SwiftliteError, match="entry 1 of 'history'"):
        inference_client('tiny-chat', 'hi', ['hello'])


async def test_no_server():
    sentence = r"no server answers at http://127\.0\.0\.1:1 \(.*\): start one with 'swiftlite deploy'"
    with pytest.raises(SwiftliteError, match=sentence):
        get_model_list_client(port='1')
    with pytest.raises(SwiftliteError, match=sentence):
        inference_client('tiny-chat', 'hi', port=1)
    with pytest.raises(SwiftliteError, match=sentence):
        next(inference_client('tiny-chat', 'hi', request_config=STREAM, port='1'))
    with pytest.raises(SwiftliteError, match=sentence):
        await inference_client_async('tiny-chat', 'hi', port='1')
    with pytest.raises(SwiftliteError, match='is no address'):
        get_model_list_client(port='http')


class Odd(BaseHTTPRequestHandler):
    """Answers as no good server does; a good stream only for the right key."""

    def do_POST(self) -> None:
        key = self.headers.get('Authorization')
        body = {
            'Bearer html': b'<html>hello</html>',
            'Bearer cut': b'data: {"choices": []}\n\n',
            'Bearer text': b'data: hello\n\n',
            'Bearer empty': b'{}',
            'Bearer broken': b'data: {"error": {"message": "The engine stopped."}}\n\n',
            'Bearer silent': b'',
        }.get(key or '', b'data: {"choices": [{"delta": {}}]}\n\ndata: [DONE]\n\n')
        if key == 'Bearer silent':
            threading.Event().wait(1)
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[int]:
    with HTTPServer(('127.0.0.1', 0), Odd) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


async def test_odd_servers(odd):
    with pytest.raises(ServerError, match="something else than OpenAI's API"):
        inference_client('tiny-chat', 'hi', port=odd, api_key='html')
    with pytest.raises(ServerError, match="does not tell the prompt's length"):
        inference_client('qwen2-7b', 'hi', port=odd, api_key='empty')
    with pytest.raises(UsageError, match='api_key holds a character'):
        inference_client('tiny-chat', 'hi', port=odd, api_key='锁')
    breaks = (
        ('cut', 'ended before the answer did'),
        ('broken', 'The engine stopped'),
        ('text', 'something else.*hello'),
    )
    for key, says in breaks:
        with pytest.raises(ServerError, match=says):
            list(inference_client('tiny-chat', 'hi', request_config=STREAM, port=odd, api_key=key))
        with pytest.raises(ServerError, match=says):
            stream = await inference_client_async('tiny-chat', 'hi', request_config=STREAM, port=odd, api_key=key)
            [chunk async for chunk in stream]
    (chunk,) = inference_client('tiny-chat', 'hi', request_config=STREAM, port=odd)
    assert chunk.choices[0].delta.content == '' and chunk.choices[0].finish_reason is None
    with pytest.raises(SwiftliteError, match=r'was silent for 0\.2 s: give a longer timeout'):
        inference_client('tiny-chat', 'hi', port=odd, api_key='silent', timeout=0.2)
