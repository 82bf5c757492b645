import asyncio
import json
import os
import shutil
import threading
from pathlib import Path

import httpx
import openai
import pytest

from tests.served import ServerThread
from tests.tiny import tiny_adapter

HELLO = [{'role': 'user', 'content': 'Hello there!'}]


@pytest.fixture(scope='module')
def other(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_adapter(tmp_path_factory.mktemp('other'), checkpoint, seed=5, rank=8)


def text(client: openai.OpenAI, model: str) -> str:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=16, temperature=0)
    assert answer.model == model
    return answer.choices[0].message.content


def post(server: ServerThread, action: str, **body) -> httpx.Response:
    return httpx.post(f'{server.url}/v1/{action}_lora_adapter', json=body)


def test_base_and_adapter_answer_for_themselves(client: openai.OpenAI) -> None:
    base, tuned = text(client, 'tiny-model'), text(client, 'tuner-a')
    assert base != tuned
    assert text(client, 'tiny-model') == base, 'the adapter left nothing behind'


def test_load_use_replace_unload(server: ServerThread, client: openai.OpenAI, adapter: Path, other: Path) -> None:
    first, base = text(client, 'tuner-a'), text(client, 'tiny-model')
    before = server.stats()['adapters']
    loaded = post(server, 'load', lora_name='more', lora_path=str(adapter))
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'more' added successfully.")
    assert loaded.headers['content-type'].startswith('text/plain')
    assert text(client, 'more') == first
    again = post(server, 'load', lora_name='more', lora_path=str(other))
    assert again.status_code == 400 and 'has already been loaded' in again.json()['error']['message']
    assert text(client, 'more') == first
    assert post(server, 'load', lora_name='more', lora_path=str(other), load_inplace=True).status_code == 200
    assert text(client, 'more') not in (first, base), 'new weights, and no cached prefix of the old ones'
    gone = post(server, 'unload', lora_name='more')
    assert (gone.status_code, gone.text) == (200, "Success: LoRA adapter 'more' removed successfully.")
    with pytest.raises(openai.NotFoundError):
        text(client, 'more')
    assert server.stats()['adapters'] == before, 'the engine has forgotten it'


def test_refusals(server: ServerThread, adapter: Path, tmp_path: Path) -> None:
    def error(answer: httpx.Response, status: int) -> dict:
        assert answer.status_code == status, answer.text
        return answer.json()['error']

    assert error(post(server, 'load', lora_name='x'), 400)['type'] == 'InvalidUserInput'
    assert 'not a folder' in error(post(server, 'load', lora_name='x', lora_path='/nowhere'), 404)['message']
    assert 'adapter_config' in error(post(server, 'load', lora_name='x', lora_path=str(tmp_path)), 400)['message']
    assert 'base model' in error(post(server, 'load', lora_name='tiny-model', lora_path=str(adapter)), 400)['message']
    assert 'cannot be found' in error(post(server, 'unload', lora_name='x'), 404)['message']
    assert error(post(server, 'unload'), 400)['type'] == 'InvalidUserInput'
    broken = tmp_path / 'broken'
    shutil.copytree(adapter, broken)
    (broken / 'adapter_model.safetensors').write_bytes(b'nothing')
    error(post(server, 'load', lora_name='x', lora_path=str(broken)), 400)
    big = tmp_path / 'big'
    shutil.copytree(adapter, big)
    config = json.loads((big / 'adapter_config.json').read_text())
    (big / 'adapter_config.json').write_text(json.dumps(config | {'use_dora': True}))
    assert 'use_dora' in error(post(server, 'load', lora_name='x', lora_path=str(big)), 400)['message']
    assert 'x' not in [card['id'] for card in httpx.get(f'{server.url}/v1/models').json()['data']]


def test_unload_while_answers_run(server: ServerThread, client: openai.OpenAI, adapter: Path) -> None:
    """What began before the adapter was unloaded is finished with it."""
    post(server, 'load', lora_name='brief', lora_path=str(adapter))
    options = {'messages': HELLO, 'max_tokens': 60, 'temperature': 0, 'extra_body': {'ignore_eos': True}}
    expected = client.chat.completions.create(model='tuner-a', **options).choices[0].message.content
    stream = client.chat.completions.create(model='brief', stream=True, **options)
    parts = [next(stream), next(stream)]
    assert post(server, 'unload', lora_name='brief').status_code == 200
    parts += stream
    assert ''.join(part.choices[0].delta.content or '' for part in parts) == expected


def test_replacing_in_place_disturbs_nobody(server: ServerThread, adapter: Path, other: Path) -> None:
    """Requests that come in while their adapter is replaced are answered by the old weights or the new ones."""
    post(server, 'load', lora_name='busy', lora_path=str(adapter))

    async def scenario() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            body = {'model': 'busy', 'messages': HELLO, 'max_tokens': 4, 'temperature': 0}

            async def replace() -> list[httpx.Response]:
                load = {'lora_name': 'busy', 'load_inplace': True}
                paths = [str(other), str(adapter)] * 4
                return [await client.post('/v1/load_lora_adapter', json=load | {'lora_path': path}) for path in paths]

            async def ask() -> list[httpx.Response]:
                return [await client.post('/v1/chat/completions', json=body | {'n': 1 + i % 3}) for i in range(12)]

            groups = await asyncio.gather(replace(), *(ask() for _ in range(6)))
            return [answer for group in groups for answer in group]

    answers = asyncio.run(scenario())
    assert {answer.status_code for answer in answers} == {200}, [a.text for a in answers if a.status_code != 200][:3]
    bodies = [answer.json() for answer in answers if 'json' in answer.headers['content-type']]
    texts = {choice['message']['content'] for body in bodies for choice in body['choices']}
    assert len(texts) == 2, 'both kinds of weights have answered, and nothing else'
    post(server, 'unload', lora_name='busy')


def test_a_folder_that_hangs_does_not_hold_up_the_server(
    server: ServerThread, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, came, isdir = threading.Event(), threading.Event(), os.path.isdir

    def slow(path: str) -> bool:
        if path == '/hangs':
            came.set()
            assert hangs.wait(60)
        return isdir(path)

    monkeypatch.setattr(os.path, 'isdir', slow)
    body = {'lora_name': 'slow', 'lora_path': '/hangs'}
    waits = threading.Thread(target=lambda: httpx.post(f'{server.url}/v1/load_lora_adapter', json=body, timeout=60))
    waits.start()
    try:
        assert came.wait(30)
        assert httpx.get(f'{server.url}/health', timeout=20).status_code == 200
    finally:
        hangs.set()
        waits.join()


def test_a_disk_that_hangs_holds_up_its_own_adapter_only(
    server: ServerThread, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, hangs, came = server.service.engine, threading.Event(), threading.Event()
    add = engine.add_lora

    async def slow(request) -> None:
        if request.lora_name == 'slow':
            came.set()
            await asyncio.to_thread(hangs.wait, 60)
        await add(request)

    monkeypatch.setattr(engine, 'add_lora', slow)
    answers: list[httpx.Response] = []
    body = {'lora_name': 'slow', 'lora_path': str(adapter)}
    waits = threading.Thread(
        target=lambda: answers.append(httpx.post(f'{server.url}/v1/load_lora_adapter', json=body, timeout=60))
    )
    waits.start()
    try:
        assert came.wait(30)
        assert post(server, 'load', lora_name='quick', lora_path=str(adapter)).status_code == 200
        assert post(server, 'unload', lora_name='quick').status_code == 200
    finally:
        hangs.set()
        waits.join()
    assert answers[0].status_code == 200
    assert post(server, 'unload', lora_name='slow').status_code == 200
    assert not server.service.changing
