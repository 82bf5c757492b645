"""Random requests after the server's own OpenAPI description never make it fail.

SCHEMA_EXAMPLES=200 draws that many for each endpoint instead of 3 (docs/server.md names the longer run).
"""

import os
from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

from tests.served import ServerThread

EXAMPLES = int(os.environ.get('SCHEMA_EXAMPLES', '3'))
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
        if isinstance(case.body.get('max_tokens'), int):
            case.body['max_tokens'] %= 50
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
