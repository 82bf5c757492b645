"""Tool calls, streamed and whole. The engine is a script here: what a model would write is given."""

import itertools
import json
from types import SimpleNamespace

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.engine.outputs import CompletionOutput, RequestOutput
from swiftlite.serve.app import create_app
from swiftlite.serve.models_list import ServedModels
from swiftlite.serve.service import Service
from swiftlite.serve.tool_calls import ToolCallStream
from swiftlite.template.tools import FORMATS
from tests.served import sse

TOOLS = [{'type': 'function', 'function': {'name': 'add', 'parameters': {'type': 'object', 'properties': {}}}}]
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "two"}}\n</tool_call>'
TRICKY = '<tool_call>\n{"name": "say", "arguments": {"text": "</tool_call> is no end"}}\n</tool_call>'
ANSWERS = [
    'No call at all.',
    '  white space stays \n',
    CALL,
    f'\n{CALL}\n',
    f'Let me add. \n{CALL}',
    f'{CALL}\n{CALL}',
    f'First {CALL} then {TRICKY}',
    TRICKY,
    'a <tool_call> that never ends {"name": ',
    '<tool_call>\nnot json\n</tool_call>',
    f'<tool_call>broken</tool_call>{CALL}',
    '<tool_call>{"name": "add", "arguments": {}}',
    '1 < 2 <tool',
    '<' * 5,
]
TEMPLATE = SimpleNamespace(
    tokenizer=SimpleNamespace(added_tokens_decoder={}),
    spec=SimpleNamespace(tools='hermes'),
    tool_format=FORMATS['hermes'],
    parse_tool_calls=FORMATS['hermes'].parse,
    stop_strings=(),
    stop_token_ids=(),
    encode=lambda messages, **options: [1, 2, 3] if options['tools'] else [1, 2],
)


def assemble(pieces: list[str], **options) -> tuple[str, list[dict]]:
    """Text and calls that the deltas of `pieces` add up to, calls without their random ids."""
    stream = ToolCallStream(TEMPLATE, **options)
    deltas = [delta for i, piece in enumerate(pieces) for delta in stream.feed(piece, i == len(pieces) - 1)]
    text = ''.join(delta['content'] for delta in deltas if 'content' in delta)
    calls = [call for delta in deltas for call in delta.get('tool_calls', [])]
    assert [call['index'] for call in calls] == list(range(len(calls)))
    assert [call['id'] for call in calls] == [call['id'] for call in stream.calls]
    return text, [call['function'] for call in calls]


@given(st.sampled_from(ANSWERS), st.lists(st.integers(0, 120), max_size=30))
def test_any_cut_gives_the_same(answer: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    pieces = [answer[a:b] for a, b in itertools.pairwise(places)]
    assert assemble(pieces) == assemble([answer])


def test_what_comes_out() -> None:
    add = {'name': 'add', 'arguments': '{"a": 1, "b": "two"}'}
    assert assemble(['No call at all.']) == ('No call at all.', [])
    assert assemble([f'Let me add. \n{CALL}']) == ('Let me add.', [add])
    assert assemble([f'{CALL}\n{CALL}']) == ('', [add, add])
    assert assemble([f'{CALL}\n{CALL}'], parallel=False) == ('', [add])
    assert json.loads(assemble([TRICKY])[1][0]['arguments']) == {'text': '</tool_call> is no end'}
    assert assemble(['<tool_call>\nnot json\n</tool_call>']) == ('<tool_call>\nnot json\n</tool_call>', [])
    assert assemble(['a <tool_call> {"name": '])[0] == 'a <tool_call> {"name": '


def test_text_is_not_held_back() -> None:
    stream = ToolCallStream(TEMPLATE)
    assert stream.feed('Hello there', False) == [{'content': 'Hello there'}]
    assert stream.feed(' you <', False) == [{'content': ' you'}]
    assert stream.feed('3', False) == [{'content': ' <3'}]


class Script:
    """An engine that writes `answer` in pieces of three characters."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.model_config = SimpleNamespace(max_model_len=100, vocab_size=50)
        self.tokenizer = None
        self.prompts: list[list[int]] = []

    async def generate(self, prompt, params, request_id, lora_request=None, *, cache_salt=None):
        self.prompts.append(prompt)
        pieces = [self.answer[i : i + 3] for i in range(0, len(self.answer), 3)]
        for i, piece in enumerate(pieces):
            reason = 'stop' if i == len(pieces) - 1 else None
            yield RequestOutput(request_id, None, prompt, [CompletionOutput(0, piece, [i], finish_reason=reason)])


async def ask(answer: str, **body) -> tuple[dict, list[dict], Script]:
    """The same request whole and streamed."""
    engine = Script(answer)
    service = Service(engine, ServedModels(['m'], 'm', max_model_len=100), TEMPLATE)
    transport = httpx.ASGITransport(create_app(service))
    body = {'messages': [{'role': 'user', 'content': 'hi'}]} | body
    async with httpx.AsyncClient(transport=transport, base_url='http://test') as client:
        whole = await client.post('/v1/chat/completions', json=body)
        streamed = await client.post('/v1/chat/completions', json=body | {'stream': True})
    assert whole.status_code == 200, whole.text
    return whole.json()['choices'][0], [c['choices'][0] for c in sse(iter(streamed.text.splitlines()))], engine


@pytest.mark.parametrize('answer', ANSWERS)
async def test_streamed_equals_whole(answer: str) -> None:
    whole, chunks, engine = await ask(answer, tools=TOOLS)
    calls = [call for chunk in chunks for call in chunk['delta'].get('tool_calls', [])]
    message = whole['message']
    assert [c['function'] for c in calls] == [c['function'] for c in message.get('tool_calls', [])]
    assert ''.join(chunk['delta'].get('content', '') for chunk in chunks) == (message['content'] or '')
    assert chunks[-1]['finish_reason'] == whole['finish_reason'] == ('tool_calls' if calls else 'stop')
    assert message['content'] != '', 'a message of calls alone has content null'
    assert engine.prompts[0] == [1, 2, 3], 'the template saw the tools'


async def test_without_tools_the_answer_is_text() -> None:
    for body in ({}, {'tools': TOOLS, 'tool_choice': 'none'}):
        whole, _, engine = await ask(CALL, **body)
        assert whole['message'] == {'role': 'assistant', 'content': CALL}
        assert whole['finish_reason'] == 'stop'
        assert engine.prompts[0] == [1, 2], 'the template saw no tools'
