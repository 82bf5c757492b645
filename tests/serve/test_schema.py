"""Random requests after the server's own OpenAPI description never make it fail.

SCHEMA_EXAMPLES=200 draws that many for each endpoint instead of 2 (docs/server.md names the longer run).
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from swiftlite.serve.protocol import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    LoadAdapterBody,
    TokenizeBody,
    UnloadAdapterBody,
)
from swiftlite.serve.refused import REFUSED
from tests.served import ServerThread

EXAMPLES = int(os.environ.get('SCHEMA_EXAMPLES', '2'))
NAMED = ('/v1/chat/completions', '/v1/completions', '/tokenize', '/detokenize')


@pytest.fixture(scope='module')
def small(server: ServerThread) -> Iterator[ServerThread]:
    """The server with a batch that random `n` cannot fill for hours; it answers afterwards as before."""
    body = {'prompt': 'Hello', 'max_tokens': 8}
    before = httpx.post(f'{server.url}/v1/completions', json=body).json()['choices']
    limits = server.service.limits
    server.service.limits = type(limits)(max_queued_requests=0)
    yield server
    server.service.limits = limits
    assert httpx.post(f'{server.url}/v1/completions', json=body).json()['choices'] == before
    stats = server.stats()
    assert stats['blocks_used'] == stats['num_running'] == stats['num_waiting'] == 0


def check(case: schemathesis.Case) -> None:
    if case.path in NAMED and isinstance(case.body, dict):
        case.body.pop('model', None)  # a random name is no model, and nothing else would be looked at
        # large values are refused or answered elsewhere; here they would take the time of many cases
        for name, most in (('max_tokens', 20), ('max_completion_tokens', 20), ('n', 4)):
            value = case.body.get(name)
            if name != 'n' and value is None:
                case.body[name] = most
            elif isinstance(value, int) and value > most:
                case.body[name] = value % most + 1
    answer = case.call()
    assert answer.status_code < 500, (case.body, answer.text)
    if answer.status_code >= 400:
        error = answer.json()['error']
        assert error['message'].endswith('.') and '\n' not in error['message']


@pytest.mark.parametrize('mode', [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_request_is_a_server_error(small: ServerThread, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f'{small.url}/openapi.json')
    options = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    for operation in (result.ok() for result in schema.get_all_operations()):
        try:
            options(given(operation.as_strategy(generation_mode=mode))(check))()
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # there is nothing to get wrong


def test_bodies_are_described(small: ServerThread) -> None:
    described = httpx.get(f'{small.url}/openapi.json').json()
    schemas = described['components']['schemas']
    for path in NAMED:
        body = described['paths'][path]['post']['requestBody']['content']['application/json']['schema']
        assert len(schemas[body['$ref'].split('/')[-1]]['properties']) >= 2
        answers = described['paths'][path]['post']['responses']
        assert '$ref' in answers['200']['content']['application/json']['schema'] and '4XX' in answers
    messages = schemas['ChatBody']['properties']['messages']
    assert messages['items']['anyOf'][0]['properties']['role']['enum'] == ['system', 'developer', 'user']


def test_the_docs_name_every_field_and_metric(small: ServerThread) -> None:
    page = (Path(__file__).parents[2] / 'docs' / 'server.md').read_text(encoding='utf-8')
    bodies = (ChatBody, CompletionBody, TokenizeBody, DetokenizeBody, LoadAdapterBody, UnloadAdapterBody)
    fields = {name for body in bodies for name in body.model_fields} | {refusal.field for refusal in REFUSED}
    missing = {name for name in fields if not re.search(rf'\b{name}\b', page) and not name.startswith('guided_')}
    assert missing == {'lora_int_id'}, 'which has no effect'
    metrics = httpx.get(f'{small.url}/metrics').text
    names = set(re.findall(r'^# TYPE (\S+) (?:gauge|counter|histogram)', metrics, re.MULTILINE))
    assert {name for name in names if not name.endswith('_created')} == set(re.findall(r'(?:vllm|swiftlite):\w+', page))
