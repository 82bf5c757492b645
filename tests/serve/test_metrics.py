"""/metrics as a Prometheus server reads it, and the other status endpoints."""

import asyncio
import logging
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from swiftlite.engine.errors import EngineDeadError
from swiftlite.serve import app
from swiftlite.serve.metrics import LATENCY, Metrics
from swiftlite.serve.models_list import ServedModels
from swiftlite.serve.service import Service
from swiftlite.serve.stats_log import log_stats
from tests.served import ServerThread

LONG = {'ignore_eos': True}
GAUGES = ('num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc')
COUNTERS = ('prompt_tokens', 'generation_tokens', 'num_preemptions', 'prefix_cache_queries', 'prefix_cache_hits')
HISTOGRAMS = (
    'time_to_first_token_seconds',
    'inter_token_latency_seconds',
    'request_time_per_output_token_seconds',
    'e2e_request_latency_seconds',
    'request_prompt_tokens',
    'request_generation_tokens',
)


def scrape(server: ServerThread) -> dict:
    answer = httpx.get(f'{server.url}/metrics')
    assert answer.headers['content-type'].startswith('text/plain; version=0.0.4')
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def total(families: dict, name: str, suffix: str = '') -> float:
    name = name if ':' in name else f'vllm:{name}'
    return sum(s.value for s in families[name].samples if s.name == f'{name}{suffix}')


def test_every_name_and_its_kind(server: ServerThread, client: openai.OpenAI) -> None:
    before = scrape(server)
    prompt = 'as a Prometheus server reads it, and reads it again'
    usage = client.completions.create(
        model='tiny-model', prompt=prompt, max_tokens=9, extra_body={'ignore_eos': True}
    ).usage
    after = scrape(server)
    kinds = {'gauge': GAUGES, 'counter': (*COUNTERS, 'request_success'), 'histogram': HISTOGRAMS}
    for kind, names in kinds.items():
        for name in names:
            family = after[f'vllm:{name}']
            assert family.type == kind and family.documentation
            assert all(s.labels['model_name'] == 'tiny-model' and s.labels['engine'] == '0' for s in family.samples)

    def grown(name: str, suffix: str) -> float:
        return total(after, name, suffix) - total(before, name, suffix)

    assert grown('prompt_tokens', '_total') == usage.prompt_tokens
    assert grown('generation_tokens', '_total') == grown('request_generation_tokens', '_sum') == 9
    assert grown('request_prompt_tokens', '_sum') == usage.prompt_tokens
    assert grown('inter_token_latency_seconds', '_count') <= 8
    for name in ('time_to_first_token_seconds', 'e2e_request_latency_seconds', 'request_time_per_output_token_seconds'):
        assert grown(name, '_count') == 1
    reasons = {s.labels['finished_reason']: s.value for s in after['vllm:request_success'].samples}
    assert reasons['length'] >= 1
    assert grown('prefix_cache_queries', '_total') >= usage.prompt_tokens - 1
    client.completions.create(model='tiny-model', prompt=prompt, max_tokens=1)
    assert total(scrape(server), 'prefix_cache_hits', '_total') > total(after, 'prefix_cache_hits', '_total')
    assert all(total(after, name) == 0 for name in GAUGES)


def test_counters_survive_an_engine_that_starts_again() -> None:
    metrics = Metrics('m')

    def queries(**stats: int) -> float:
        text = metrics.render(stats).decode()
        return total({f.name: f for f in text_string_to_metric_families(text)}, 'prefix_cache_queries', '_total')

    assert [queries(prefix_queries=5), queries(prefix_queries=7), queries(), queries(prefix_queries=2)] == [5, 7, 7, 9]


def test_an_engine_in_a_long_step_holds_up_no_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last numbers stand until it speaks again, and nothing is counted twice."""
    monkeypatch.setattr(app, 'STATS_SECONDS', 0.05)
    answers = [{'prefix_queries': 5, 'num_running': 3}, None, {'prefix_queries': 7, 'num_running': 1}]

    class Engine:
        async def stats(self) -> dict[str, int]:
            return answers.pop(0) or await asyncio.Future()

    service = Service(Engine(), ServedModels(['m'], '/m'), None)

    async def scrapes() -> list[tuple[float, float]]:
        transport = httpx.ASGITransport(app.create_app(service))
        async with httpx.AsyncClient(transport=transport, base_url='http://served') as client:
            texts = [(await client.get('/metrics')).text for _ in range(3)]
        found = [{f.name: f for f in text_string_to_metric_families(text)} for text in texts]
        return [(total(f, 'prefix_cache_queries', '_total'), total(f, 'num_requests_running')) for f in found]

    assert asyncio.run(scrapes()) == [(5, 3), (5, 3), (7, 1)]


def test_tokens_that_were_read_as_one_count_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gap a token, whatever came together; the sum of the gaps is the time between the first and the last."""
    now = 100.0
    monkeypatch.setattr('swiftlite.serve.metrics.time.perf_counter', lambda: now)
    metrics = Metrics('m')
    watch = metrics.sequence(3)
    for tokens, seconds in ((1, 0.5), (1, 0.015), (4, 0.120), (2, 0.012), (0, 0.0)):
        now += seconds
        delta = SimpleNamespace(token_ids=[7] * tokens, finish_reason=None if tokens else 'length')
        watch.step(SimpleNamespace(outputs=[delta], finished=not tokens))
    found = {f.name: f for f in text_string_to_metric_families(metrics.render({}).decode())}
    assert total(found, 'generation_tokens', '_total') == 8
    name = 'inter_token_latency_seconds'
    assert (total(found, name, '_count'), total(found, name, '_sum')) == (7, pytest.approx(0.147))
    ranges = {s.labels['le']: s.value for s in found[f'vllm:{name}'].samples if s.name.endswith('_bucket')}
    like = Histogram('like', '', buckets=LATENCY, registry=(registry := CollectorRegistry()))
    for gap in (0.015, *[0.030] * 4, *[0.006] * 2):
        like.observe(gap)
    assert ranges == {
        s.labels['le']: s.value for f in registry.collect() for s in f.samples if s.name.endswith('_bucket')
    }


def test_load_ping_and_version(server: ServerThread) -> None:
    assert httpx.get(f'{server.url}/load').json() == {'server_load': 0}
    for method in ('GET', 'POST'):
        assert httpx.request(method, f'{server.url}/ping').status_code == 200
    assert httpx.get(f'{server.url}/version').json().keys() == {'version'}


def test_an_adapter_that_is_lost_has_no_counters_any_more() -> None:
    """One that cannot be loaded into a new engine: its name ends as if it were unloaded."""
    models = ServedModels(['m'], '/m')
    service = Service(SimpleNamespace(), models, None)
    lost, other = models.request_for('lost', '/a'), models.request_for('other', '/a')
    for lora in (lost, other):
        models.add(lora)
        service.metrics.sequence(3, lora.lora_name)
    service.engine.on_lora_lost(lost)
    assert models.names == ['m', 'other']
    text = service.metrics.render({}).decode()
    assert 'lora_name="other"' in text and 'lora_name="lost"' not in text


class Engine:
    """Gives the statistics of a list, one after the other; None: it is dead just then."""

    def __init__(self, *stats: dict | None) -> None:
        self._stats = iter(stats)

    async def stats(self) -> dict:
        try:
            found = next(self._stats)
        except StopIteration:
            raise asyncio.CancelledError from None
        if found is None:
            raise EngineDeadError('dead')
        return found


async def test_a_line_of_statistics_while_there_is_something_to_say(caplog: pytest.LogCaptureFixture) -> None:
    idle = {'num_running': 0, 'num_waiting': 0, 'generated_tokens': 50, 'blocks_used': 0, 'blocks_total': 10}
    idle |= {'prefix_hits': 3, 'prefix_queries': 12}
    busy = idle | {'num_running': 2, 'num_waiting': 1, 'blocks_used': 4}
    service = SimpleNamespace(engine=Engine(busy, idle, idle, None, idle))
    with caplog.at_level(logging.INFO, 'swiftlite.serve'), pytest.raises(asyncio.CancelledError):
        await log_stats(service, 0.01)
    first, after_restart = (record.getMessage() for record in caplog.records)
    assert first.startswith('2 running, 1 waiting, ') and first.endswith('KV cache 40 % used, prefix cache 25 % hits')
    assert after_restart.startswith('0 running')
    await log_stats(service, 0)


def test_adapters_have_counters_of_their_own(server: ServerThread, client: openai.OpenAI, adapter: Path) -> None:
    """How much each is used, which run, and where they are; what is unloaded is not listed any more."""

    def of(families: dict, name: str) -> dict[str, float]:
        samples = families[f'swiftlite:lora_{name}'].samples
        return {s.labels['lora_name']: s.value for s in samples if s.name.endswith('_total')}

    body = {'lora_name': 'brief', 'lora_path': str(adapter)}
    assert httpx.post(f'{server.url}/v1/load_lora_adapter', json=body).status_code == 200
    before = scrape(server)
    answers = client.completions.create(model='brief', prompt='hello', max_tokens=60, stream=True, extra_body=LONG)
    next(answers)
    families = scrape(server)
    (info,) = families['vllm:lora_requests_info'].samples
    assert info.labels['running_lora_adapters'] == 'brief' and info.labels['max_lora'] == '8' and info.value > 1e9
    assert info.labels['waiting_lora_adapters'] == ''
    for _ in answers:
        pass
    after = scrape(server)
    assert of(after, 'requests')['brief'] == 1 and of(after, 'generation_tokens')['brief'] == 60
    assert of(after, 'prompt_tokens')['brief'] > 0 and 'brief' not in of(before, 'requests')
    for name in ('adapters', 'adapters_on_device', 'adapters_in_memory'):
        assert after[f'swiftlite:{name}'].samples[0].value >= 1
    assert (
        total(after, 'swiftlite:adapter_uploads', '_total') >= total(before, 'swiftlite:adapter_uploads', '_total') + 1
    )
    assert httpx.post(f'{server.url}/v1/unload_lora_adapter', json={'lora_name': 'brief'}).status_code == 200
    assert 'brief' not in of(scrape(server), 'requests')
