"""Sampling flags of deploy are the defaults of requests, and --max_logprobs is its limit."""

import httpx
import pytest

from tests.served import ServerProcess


@pytest.fixture(scope='module')
def server():
    words = ['--model_type', 'tiny-chat', '--temperature', '1.5', '--top_k', '1', '--stop_words', 'an AI']
    with ServerProcess(*words, '--max_logprobs', '3') as server:
        yield server


def ask(server, **fields):
    body = {'model': 'tiny-chat', 'messages': [{'role': 'user', 'content': 'who are you?'}], 'max_tokens': 30} | fields
    return httpx.post(f'{server.url}/v1/chat/completions', json=body, timeout=60)


def test_flags_are_defaults(server):
    answers = {ask(server).json()['choices'][0]['message']['content'] for _ in range(3)}
    assert answers == {'I am tiny-chat, '}, 'the likeliest token each time, up to the stop text'
    (choice,) = ask(server, stop=['tiny']).json()['choices']
    assert choice['message']['content'] == 'I am ', 'stop texts of the request come beside it'
    drawn = [ask(server, top_k=-1, temperature=2, seed=i).json()['choices'][0]['message']['content'] for i in range(4)]
    assert len(set(drawn)) > 1, 'the request wins'


def test_most_logprobs(server):
    assert ask(server, logprobs=True, top_logprobs=3).status_code == 200
    refused = ask(server, logprobs=True, top_logprobs=4)
    assert refused.status_code == 400 and 'the most is 3' in refused.json()['error']['message']
