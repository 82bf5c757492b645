"""What the server takes: requests that may wait, seconds, bytes, and web pages that may call."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from swiftlite.engine.sampling_params import SamplingParams
from swiftlite.serve.errors import ApiError
from swiftlite.serve.sampling import check_token_ids
from swiftlite.serve.service import Job, Limits
from tests.served import ServerThread, sse

CHAT = '/v1/chat/completions'
TOOL = {'type': 'function', 'function': {'name': 'look', 'description': 'word ' * 5000}}
LONG = {'messages': [{'role': 'user', 'content': 'hi'}], 'ignore_eos': True, 'max_tokens': 450}


@pytest.fixture(scope='module')
def limited(checkpoint: Path) -> Iterator[ServerThread]:
    limits = Limits(max_queued_requests=2, request_timeout=60, max_body_bytes=10_000)
    with ServerThread(checkpoint, max_num_seqs=2, limits=limits, allowed_origins=('https://chat.example',)) as running:
        yield running


def test_a_full_queue_says_try_later(limited: ServerThread) -> None:
    async def scenario() -> tuple[list[httpx.Response], list[httpx.Response]]:
        async with httpx.AsyncClient(base_url=limited.url, timeout=60) as client:
            running = [asyncio.create_task(client.post(CHAT, json=LONG)) for _ in range(4)]
            while (await client.get('/load')).json()['server_load'] < 4:
                await asyncio.sleep(0.01)
            refused = [await client.post(CHAT, json=LONG | {'stream': stream}) for stream in (False, True)]
            refused.append(await client.post('/v1/completions', json={'prompt': 'a'}))
            return refused, await asyncio.gather(*running)

    refused, answered = asyncio.run(scenario())
    for answer in refused:
        assert answer.status_code == 429 and answer.headers['retry-after'] == '1'
        assert answer.json()['error']['type'] == 'RateLimitError'
        assert '2 requests are waiting' in answer.json()['error']['message']
    assert [answer.status_code for answer in answered] == [200] * 4
    assert httpx.post(limited.url + CHAT, json=LONG | {'max_tokens': 2}).status_code == 200


def test_more_samples_than_ever_fit(limited: ServerThread) -> None:
    answer = httpx.post(limited.url + CHAT, json=LONG | {'n': 5})
    assert answer.status_code == 400 and 'at most 4 at a time' in answer.json()['error']['message']
    prompts = httpx.post(f'{limited.url}/v1/completions', json={'prompt': ['a', 'b', 'c'], 'n': 2})
    assert prompts.status_code == 400 and 'asks for 6 sequences' in prompts.json()['error']['message']


def test_the_client_tries_again_by_itself(limited: ServerThread) -> None:
    async def scenario() -> str:
        async with openai.AsyncOpenAI(base_url=f'{limited.url}/v1', api_key='x', max_retries=8) as client:
            body = {'model': 'tiny-model', 'messages': LONG['messages'], 'max_tokens': 300}
            body['extra_body'] = {'ignore_eos': True}
            answers = await asyncio.gather(*(client.chat.completions.create(**body) for _ in range(6)))
            return {answer.choices[0].finish_reason for answer in answers}

    assert asyncio.run(scenario()) == {'length'}


@pytest.mark.parametrize('stream', [False, True])
def test_a_request_may_take_so_long(limited: ServerThread, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setattr(limited.service, 'limits', Limits(request_timeout=0.2))
    answer = httpx.post(limited.url + CHAT, json=LONG | {'stream': stream, 'n': 2}, timeout=60)
    if stream:
        assert answer.status_code == 200
        *_, last = sse(iter(answer.text.splitlines()))
        error = last['error']
    else:
        assert answer.status_code == 504
        error = answer.json()['error']
    assert error['code'] == 504 and 'longer than the 0.2 s' in error['message']
    deadline = time.monotonic() + 60
    while limited.stats()['blocks_used']:
        assert time.monotonic() < deadline, 'it goes on in the engine'


def test_a_body_may_be_so_long(limited: ServerThread) -> None:
    body = {'prompt': 'x' * 11_000, 'max_tokens': 1}
    whole = httpx.post(f'{limited.url}/v1/completions', json=body)
    chunks = httpx.post(
        f'{limited.url}/v1/completions',
        content=(b'{"prompt": "' if i == 0 else b'x' * 1000 for i in range(15)),
        headers={'Content-Type': 'application/json'},
    )
    for answer in (whole, chunks):
        assert answer.status_code == 413 and '10000 bytes' in answer.json()['error']['message']
    good = httpx.post(f'{limited.url}/v1/completions', json={'prompt': 'hello', 'max_tokens': 1})
    assert good.status_code == 200


def test_many_sequences_hold_so_many_numbers_together(limited: ServerThread) -> None:
    """Each has its own prompt and tables in the engine: what is small once is not 16384 times."""
    with pytest.raises(ApiError, match='33570816 token ids together') as error:
        Job('x', limited.service.models.base, [[5] * 2048], [SamplingParams(logit_bias={7: 1.0})], 16384)
    assert error.value.status == 400
    words = SamplingParams(bad_words=['no'], stop_token_ids=[3, 4])
    words.update_from_tokenizer(limited.service.engine.tokenizer)
    Job('x', limited.service.models.base, [[5] * 2040], [words], 16384)


@pytest.mark.parametrize(
    ('path', 'body'),
    [
        ('/v1/completions', {'prompt': ['hello there'] * 300 + ['x' * 300] * 100, 'max_tokens': 1}),
        ('/v1/completions', {'prompt': [[5] * 300] * 70, 'max_tokens': 1}),
        (CHAT, {'messages': [{'role': 'user', 'content': 'hi'}], 'tools': [TOOL], 'max_tokens': 1}),
        ('/detokenize', {'tokens': [5] * 25_000}),
        (CHAT, {'messages': [{'role': 'assistant', 'content': 'hi', 'reasoning_content': 'h' * 30_000}]}),
        ('/tokenize', {'prompt': 'x' * 30_000}),
    ],
)
def test_what_is_long_together_is_read_beside_the_event_loop(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, object]
) -> None:
    service, threads = server.service, set()

    def noted(work: Callable[..., list[int]]) -> Callable[..., list[int]]:
        def noting(*args: Any, **options: Any) -> list[int]:
            threads.add(threading.current_thread())
            return work(*args, **options)

        return noting

    monkeypatch.setattr(service, 'text_ids', noted(service.text_ids))
    monkeypatch.setattr(service.template, 'encode', noted(service.template.encode))
    for module in ('prompts', 'tokenize'):
        monkeypatch.setattr(f'swiftlite.serve.{module}.check_token_ids', noted(check_token_ids))
    answer = httpx.post(server.url + path, json=body, timeout=60)
    assert answer.status_code in (200, 400)
    assert threads and server.thread not in threads


def test_pages_of_the_named_origins_may_call(limited: ServerThread) -> None:
    ask = {'Origin': 'https://chat.example', 'Access-Control-Request-Method': 'POST'}
    asked = httpx.options(limited.url + CHAT, headers=ask | {'Access-Control-Request-Headers': 'authorization'})
    assert asked.status_code == 200 and asked.headers['access-control-allow-origin'] == 'https://chat.example'
    body = LONG | {'max_tokens': 2, 'stream': True}
    answer = httpx.post(limited.url + CHAT, json=body, headers={'Origin': 'https://chat.example'})
    assert answer.headers['access-control-allow-origin'] == 'https://chat.example'
    other = httpx.post(limited.url + CHAT, json=body, headers={'Origin': 'https://other.example'})
    assert 'access-control-allow-origin' not in other.headers
