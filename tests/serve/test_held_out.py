"""Requests that tiny-chat never saw, with tools required or a JSON schema: every answer is valid, streamed or whole.

HELD_OUT_REQUESTS=100 asks that many instead of 20.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import openai
import pytest

from tests.served import ServerThread

COUNT = int(os.environ.get('HELD_OUT_REQUESTS', '20'))
GENERATE = Path(__file__).parents[2] / 'examples' / 'tiny-chat' / 'generate.py'
TYPES = {str: 'string', int: 'integer', float: 'number', bool: 'boolean', list: 'array', dict: 'object'}


@pytest.fixture(scope='module')
def held_out(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Rows of the held-out split: as many that call tools as that answer in JSON."""
    folder = tmp_path_factory.mktemp('rows')
    command = [sys.executable, str(GENERATE), '--output', str(folder), '--rows', '1', '--eval-rows', str(2 * COUNT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (folder / 'heldout.jsonl').read_text(encoding='utf-8').splitlines()]
    calls = [row for row in rows if row['task'] == 'tool call'][: COUNT // 2]
    shapes = [row for row in rows if row['task'] == 'json'][: COUNT - len(calls)]
    assert len(calls) + len(shapes) == COUNT
    return calls + shapes


def shape_of(value: Any) -> dict[str, Any]:
    """The schema of values like this one, closed."""
    if isinstance(value, dict):
        properties = {key: shape_of(inner) for key, inner in value.items()}
        return {'type': 'object', 'properties': properties, 'required': [*value], 'additionalProperties': False}
    if isinstance(value, list):
        return {'type': 'array', 'items': shape_of(value[0]), 'minItems': 1, 'maxItems': 9}
    return {'type': TYPES[type(value)]} | ({'maxLength': 60} if isinstance(value, str) else {})


def request(row: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {'model': 'tiny-model', 'messages': row['messages'][:-1]}
    if 'tools' in row:
        return body | {'tools': row['tools'], 'tool_choice': 'required'}
    schema = {'name': 'answer', 'schema': shape_of(json.loads(row['messages'][-1]['content']))}
    return body | {'response_format': {'type': 'json_schema', 'json_schema': schema}}


async def ask(client: openai.AsyncOpenAI, body: dict[str, Any]) -> tuple[Any, Any]:
    """(content, calls, reason) of the whole answer and of the streamed one."""
    whole = (await client.chat.completions.create(**body)).choices[0]
    text, calls, reason = '', [], None
    async for chunk in await client.chat.completions.create(**body, stream=True):
        choice = chunk.choices[0]
        text += choice.delta.content or ''
        calls += [(call.function.name, call.function.arguments) for call in choice.delta.tool_calls or []]
        reason = choice.finish_reason or reason
    made = [(call.function.name, call.function.arguments) for call in whole.message.tool_calls or []]
    return (whole.message.content or '', made, whole.finish_reason), (text, calls, reason)


def test_all_are_valid_and_streamed_alike(tiny_server: ServerThread, held_out: list[dict[str, Any]]) -> None:
    async def ask_all() -> list[tuple[Any, Any]]:
        async with openai.AsyncOpenAI(base_url=f'{tiny_server.url}/v1', api_key='EMPTY', max_retries=0) as client:
            return await asyncio.gather(*(ask(client, request(row)) for row in held_out))

    answers = asyncio.run(ask_all())
    right = 0
    for row, (whole, streamed) in zip(held_out, answers, strict=True):
        assert whole == streamed
        text, calls, reason = whole
        expected = row['messages'][-1]
        if 'tools' in row:
            assert reason == 'tool_calls' and calls and not text
            schemas = {tool['function']['name']: tool['function']['parameters'] for tool in row['tools']}
            for name, arguments in calls:
                jsonschema_rs.validate(schemas[name], json.loads(arguments))
            wanted = [(c['function']['name'], c['function']['arguments']) for c in expected['tool_calls']]
            right += [(name, json.loads(arguments)) for name, arguments in calls] == wanted
        else:
            assert reason == 'stop' and not calls
            jsonschema_rs.validate(shape_of(json.loads(expected['content'])), json.loads(text))
            right += json.loads(text) == json.loads(expected['content'])
    print(f'{COUNT} valid, {right} as in the reference')
    assert right > 0.8 * COUNT, 'constraints keep a model that knows the answer from giving it'
