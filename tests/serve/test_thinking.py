"""Whether a model thinks first is the request's choice, where its template leaves one."""

import httpx
import pytest
from transformers import AutoTokenizer

from swiftlite.hub import asset_path
from swiftlite.serve.app import create_app
from swiftlite.serve.models_list import ServedModels
from swiftlite.serve.service import Service
from swiftlite.template import Template, get_template
from tests.serve.test_tool_calls import Script

HI = [{'role': 'user', 'content': 'hi'}]


@pytest.fixture(scope='module')
def template() -> Template:
    return get_template('qwen3', AutoTokenizer.from_pretrained(asset_path('tiny-chat')))


async def prompt_of(template: Template, **body) -> list[int]:
    """The token ids that the engine gets; /tokenize says the same."""
    engine = Script('an answer')
    engine.tokenizer = template.tokenizer
    engine.model_config.vocab_size = 8192
    service = Service(engine, ServedModels(['m'], 'm'), template)
    transport = httpx.ASGITransport(create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url='http://test') as client:
        answer = await client.post('/v1/chat/completions', json={'messages': HI} | body)
        assert answer.status_code == 200, answer.text
        if 'reasoning_effort' not in body:
            counted = await client.post('/tokenize', json={'messages': HI} | body)
            assert counted.json()['tokens'] == engine.prompts[0]
    return engine.prompts[0]


async def test_a_request_decides(template: Template) -> None:
    default, off = template.encode(HI), template.encode(HI, enable_thinking=False)
    assert default != off
    assert await prompt_of(template) == default
    assert await prompt_of(template, chat_template_kwargs={'enable_thinking': True}) == default
    assert await prompt_of(template, chat_template_kwargs={'enable_thinking': False}) == off
    assert await prompt_of(template, reasoning_effort='none') == off
    asked = {'enable_thinking': True}
    assert await prompt_of(template, reasoning_effort='none', chat_template_kwargs=asked) == default, 'the plainer wins'
