"""Tools in the formats of Llama 3.1 and Mistral: prompts as upstream's, calls read from replies."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swiftlite.errors import SwiftliteError
from swiftlite.template import IGNORE, get_template
from swiftlite.template.tools import FORMATS, short_id
from tests.template.test_template import (
    TOOLS,
    assistant,
    call,
    check,
    json_values,
    result,
    system,
    texts,
    user,
)

NAMES = ['llama3_1', 'llama3_2', 'mistral-v3', 'mistral-nemo']
ids = st.text('abcdefghijklmnopqrstuvwxyz0123456789', min_size=9, max_size=9)


@st.composite
def conversations(draw, one_call):
    """Questions, each with rounds of calls and results before the answer; upstream's ids are nine characters."""
    messages = [system(draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(user(draw(texts)))
        for _ in range(draw(st.integers(0, 2))):
            made = [
                {**call('add', draw(st.dictionaries(texts, json_values, max_size=2))), 'id': call_id}
                for call_id in draw(st.lists(ids, min_size=1, max_size=1 if one_call else 3))
            ]
            messages.append(assistant('', tool_calls=made))
            messages += [{**result(draw(texts)), 'tool_call_id': one['id']} for one in made]
        messages.append(assistant(draw(texts)))
    return messages[: draw(st.integers(1 + (messages[0]['role'] == 'system'), len(messages)))]


@pytest.fixture(scope='module')
def templates(make_tokenizer):
    return {name: get_template(name, make_tokenizer(name)) for name in NAMES}


@pytest.mark.parametrize('name', NAMES)
@settings(max_examples=80, deadline=None)
@given(data=st.data(), tools=st.sampled_from([None, TOOLS]))
def test_tool_conversations_equal_upstream(templates, name, data, tools):
    check(templates[name], data.draw(conversations(name.startswith('llama'))), tools)


def test_golden_llama(templates):
    tool = {'type': 'function', 'function': {'name': 'f'}}
    messages = [user(' q'), assistant('', tool_calls=[call('f', {'x': 'é'})]), result('say "1"')]
    head, end = '<|start_header_id|>{}<|end_header_id|>\n\n', '<|eot_id|>'
    assert templates['llama3_1'].render(messages, [tool]) == (
        '<|begin_of_text|>'
        + head.format('system')
        + 'Environment: ipython\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n'
        + end
        + head.format('user')
        + 'Given the following functions, please respond with a JSON for a function call with its proper arguments '
        'that best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": dictionary '
        'of argument name and its value}.Do not use variables.\n\n{\n    "type": "function",\n    '
        '"function": {\n        "name": "f"\n    }\n}\n\nq'
        + end
        + head.format('assistant')
        + '{"name": "f", "parameters": {"x": "é"}}'
        + end
        + head.format('ipython')
        + '"say \\"1\\""'
        + end
        + head.format('assistant')
    )


def test_golden_mistral(templates):
    tool = {'type': 'function', 'function': {'name': 'f', 'parameters': {'a': 1}}}
    made = [{**call('f', {'a': 1}), 'id': 'abcdefghi'}]
    answered = {**result('2'), 'tool_call_id': 'abcdefghi'}
    messages = [system('s'), user('a'), assistant(' b '), user('c'), assistant('', tool_calls=made), answered]
    tools = '{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}'
    calls = '{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}'
    assert templates['mistral-v3'].render(messages, [tool]) == (
        f'<s>[INST] a[/INST] b</s>[AVAILABLE_TOOLS] [{tools}][/AVAILABLE_TOOLS][INST] c[/INST]'
        f'[TOOL_CALLS] [{calls}]</s>'
        '[TOOL_RESULTS] {"content": 2, "call_id": "abcdefghi"}[/TOOL_RESULTS]'
    )
    assert templates['mistral-nemo'].render(messages[:4], [tool]) == (
        f'<s>[INST]a[/INST] b </s>[AVAILABLE_TOOLS][{tools}][/AVAILABLE_TOOLS][INST]s\n\nc[/INST]'
    )
    assert templates['mistral-v3'].render(messages[:2]) == '<s>[INST] s\n\na[/INST]'


def test_ids_of_any_client_fit(templates):
    """Ids that OpenAI's clients send are longer; a result without one belongs to the next call."""
    assert (short_id('call_0123456789abcdef'), short_id('x-1'), short_id('')) == ('789abcdef', '0000000x1', '0' * 9)
    made = [{**call('f', {}), 'id': 'call_0123456789abcdef'}, {**call('g', {}), 'id': 'call_zzzzzzzzzz'}]
    told = [result('1'), {**result('2'), 'tool_call_id': 'call_zzzzzzzzzz'}]
    text = templates['mistral-nemo'].render([user('a'), assistant('', tool_calls=made), *told])
    assert text.count('789abcdef') == text.count('zzzzzzzzz') == 2
    unnamed = templates['mistral-nemo'].render([user('a'), assistant('', tool_calls=[call('f', {})]), result('1')])
    assert unnamed.count('000010000') == 2


def test_calls_are_learned(templates):
    made = [{**call('add', {'a': 1}), 'id': 'abcdefghi'}]
    for name, written in (
        ('llama3_1', '{"name": "add", "parameters": {"a": 1}}<|eot_id|>'),
        ('mistral-nemo', '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}, "id": "abcdefghi"}]</s>'),
    ):
        encoded = templates[name].encode_training([user('q'), assistant('', tool_calls=made)], tools=TOOLS)
        learned = templates[name].tokenizer.decode([x for x in encoded.labels if x != IGNORE])
        assert learned == written


@pytest.mark.parametrize(
    ('name', 'messages', 'said'),
    [
        ('llama3_1', [user('a'), assistant('', tool_calls=[call('f', {}), call('g', {})])], 'one tool call in a turn'),
        ('llama3_1', [assistant('a')], 'first message of the user'),
        ('mistral-v3', [user('a'), user('b')], 'in turn'),
        ('mistral-v3', [user('a'), assistant('', tool_calls=[call('f', '{')])], 'not JSON'),
    ],
)
def test_what_cannot_be_written_is_one_sentence(templates, name, messages, said):
    with pytest.raises(SwiftliteError, match=said) as error:
        templates[name].encode(messages, tools=TOOLS)
    assert '\n' not in str(error.value)


REPLIES = {
    'llama3': [
        ('{"name": "f", "parameters": {"a": 1}}', None, ['f']),
        ('<|python_tag|>{"name": "f", "parameters": {}}', None, ['f']),
        ('{"name": "f", "parameters": {}}; {"name": "g", "parameters": {}}', None, ['f', 'g']),
        ('{"type": "function", "name": "f", "arguments": {}}', None, ['f']),
        ('{"name": "Ann", "age": 3}', '{"name": "Ann", "age": 3}', []),
        ('{"answer": 4}', '{"answer": 4}', []),
        ('{"name": "f", "parameters": {', '{"name": "f", "parameters": {', []),
        ('I call {"name": "f", "parameters": {}}', 'I call {"name": "f", "parameters": {}}', []),
        ('', None, []),
    ],
    'mistral': [
        ('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]', None, ['f', 'g']),
        ('[{"name": "f", "arguments": {"a": 1}}]', None, ['f']),
        ('So: [TOOL_CALLS][{"name": "f", "arguments": {}}]', 'So:', ['f']),
        ('[{"name": "Ann"}]', '[{"name": "Ann"}]', []),
        ('[1, 2]', '[1, 2]', []),
        ('[TOOL_CALLS] [{"name"', '[TOOL_CALLS] [{"name"', []),
    ],
}


@pytest.mark.parametrize(
    ('name', 'reply', 'said', 'names'), [(name, *case) for name, cases in REPLIES.items() for case in cases]
)
def test_calls_in_a_reply(name, reply, said, names):
    text, calls = FORMATS[name].parse(reply)
    assert (text, [one['function']['name'] for one in calls]) == (said, names)


@pytest.mark.parametrize('name', FORMATS)
@settings(max_examples=80, deadline=None)
@given(made=st.lists(st.builds(call, st.sampled_from(['f', 'g']), st.dictionaries(texts, json_values, max_size=2))))
def test_calls_are_read_back_as_they_were_written(name, made):
    made = made[:1] if name == 'llama3' else made
    if not made:
        return
    text, calls = FORMATS[name].parse(FORMATS[name].calls(made))
    assert text is None
    assert [(c['function']['name'], json.loads(c['function']['arguments'])) for c in calls] == [
        (c['function']['name'], c['function']['arguments']) for c in made
    ]


@pytest.mark.parametrize('name', FORMATS)
@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *[
                    '<tool_call>',
                    '</tool_call>',
                    '[TOOL_CALLS]',
                    '[',
                    '{"name":"f",',
                    '"arguments":{}',
                    '}',
                    ']',
                    ';',
                    'text',
                ],
                *('"parameters":{}', '<tool', ' ', '\n', '<|python_tag|>'),
            ]
        ),
        max_size=12,
    )
)
def test_what_is_sure_is_no_call(name, parts):
    """However a reply goes on: what counts as sure stands before the first place where a call may start."""
    text = ''.join(parts)
    for end in range(len(text) + 1):
        sure, start = FORMATS[name].sure(text[:end]), FORMATS[name].find(text)
        assert 0 <= sure <= end
        if start >= 0 and FORMATS[name].complete(text, start, final=True) and not text[:start].strip():
            assert sure <= start
