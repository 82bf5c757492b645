import httpx
import openai
import pytest

from swiftlite.serve.errors import ApiError
from swiftlite.serve.models_list import ServedModels
from tests.served import ServerThread


def served() -> ServedModels:
    models = ServedModels(['tiny-chat'], '/models/tiny', max_model_len=64, aliases=('output/v0/checkpoint-1',))
    for name in ('default-lora', 'tuner_a', 'tuner-b', 'tuner_b'):
        models.add(models.request_for(name, f'/adapters/{name}'))
    return models


def test_lookup() -> None:
    models = served()
    assert models.get(None) is models.base
    assert models.get('tiny-chat') is models.get('tiny_chat') is models.base
    assert models.get('/models/tiny') is models.get('output/v0/checkpoint-1') is models.base, 'the paths answer, too'
    assert models.get('default_lora').name == 'default-lora'
    assert models.get('tuner-a').name == 'tuner_a'
    assert models.get('tuner-b').name == 'tuner-b' and models.get('tuner_b').name == 'tuner_b', 'exact wins'
    models.add(models.request_for('a-b_c', '/x'))
    models.add(models.request_for('a_b-c', '/y'))
    for name in ('a-b-c', 'Tiny-Chat', '', 'default-lor'):
        with pytest.raises(ApiError, match='tiny-chat, default-lora, tuner_a') as caught:
            models.get(name)
        assert caught.value.status == 404


def test_every_load_has_an_id_of_its_own() -> None:
    models = served()
    assert models.request_for('tuner_a', '/a').lora_int_id != models.get('tuner_a').lora.lora_int_id


def test_list_and_cards(server: ServerThread, client: openai.OpenAI) -> None:
    base, adapter = client.models.list().data
    assert (base.id, base.parent, base.max_model_len) == ('tiny-model', None, 512)
    assert (adapter.id, adapter.parent, adapter.owned_by) == ('tuner-a', 'tiny-model', 'swiftlite')
    assert client.models.retrieve('tuner-a') == adapter
    assert httpx.get(f'{server.url}/v1/models/other').status_code == 404


def test_health_version_and_metrics(server: ServerThread, client: openai.OpenAI) -> None:
    def metric(name: str) -> float:
        lines = httpx.get(f'{server.url}/metrics').text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split('{')[0] == f'vllm:{name}')

    assert httpx.get(f'{server.url}/health').status_code == 200
    assert httpx.get(f'{server.url}/version').json()['version']
    names = ['prompt_tokens_total', 'generation_tokens_total', 'request_success_total', 'prefix_cache_queries_total']
    names += ['time_to_first_token_seconds_count', 'e2e_request_latency_seconds_count']
    before = {name: metric(name) for name in names}
    usage = client.completions.create(model='tiny-model', prompt='metrics', max_tokens=7).usage
    after = {name: metric(name) - before[name] for name in names}
    assert after['prompt_tokens_total'] == usage.prompt_tokens
    assert after['generation_tokens_total'] == usage.completion_tokens
    assert after['request_success_total'] == after['time_to_first_token_seconds_count'] == 1
    assert after['e2e_request_latency_seconds_count'] == 1 and after['prefix_cache_queries_total'] > 0
    for name in ('num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc'):
        assert metric(name) == 0
