from types import SimpleNamespace

import httpx
import pytest

from swiftlite.serve.app import create_app
from swiftlite.serve.models_list import ServedModels
from swiftlite.serve.service import Service


@pytest.fixture
def guarded() -> httpx.AsyncClient:
    engine = SimpleNamespace(alive=True, model_config=SimpleNamespace(max_model_len=8, vocab_size=8))
    service = Service(engine, ServedModels(['m'], 'm', max_model_len=8), None, api_keys=('other', 'sécret'))
    return httpx.AsyncClient(transport=httpx.ASGITransport(create_app(service)), base_url='http://test')


async def test_v1_needs_the_key(guarded: httpx.AsyncClient) -> None:
    for headers in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': 'sécret'.encode()}):
        for method, path in (('GET', '/v1/models'), ('POST', '/v1/chat/completions'), ('POST', '/v1/nothing')):
            answer = await guarded.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.json()['error']['code'] == 401 and 'Bearer' in answer.json()['error']['message']
    answer = await guarded.get('/v1/models', headers={'Authorization': 'Bearer sécret'.encode()})
    assert answer.status_code == 200


async def test_the_rest_is_open(guarded: httpx.AsyncClient) -> None:
    assert (await guarded.get('/health')).status_code == 200
    assert (await guarded.get('/version')).status_code == 200
    assert (await guarded.options('/v1/models')).status_code == 405


async def test_a_model_without_a_template_completes_only(guarded: httpx.AsyncClient) -> None:
    body = {'messages': [{'role': 'user', 'content': 'hi'}]}
    key = {'Authorization': 'Bearer sécret'.encode()}
    answer = await guarded.post('/v1/chat/completions', json=body, headers=key)
    assert answer.status_code == 400 and '/v1/completions' in answer.json()['error']['message']
