"""Every shape of a row that fine-tuning data comes in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swiftlite.data.columns import QUERY, RESPONSE, RowError, to_conversation
from swiftlite.registry.datasets import DatasetInfo

USER, REPLY = {'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'content': 'hello'}
SYSTEM = {'role': 'system', 'content': 'Be kind.'}
CALL = {'type': 'function', 'function': {'name': 'f', 'arguments': {'a': 1}}}


@pytest.mark.parametrize('query', QUERY)
@pytest.mark.parametrize('response', RESPONSE)
def test_column_names_of_many_sets(query, response):
    assert to_conversation({query: 'hi', response: 'hello', 'system': 'Be kind.'}) == ([SYSTEM, USER, REPLY], None)


@pytest.mark.parametrize(
    ('record', 'messages'),
    [
        ({'conversation': [{'human': 'hi', 'assistant': 'hello'}] * 2}, [USER, REPLY, USER, REPLY]),
        ({'conversation': [{'human': 'hi', 'assistant': 'hello', 'system': 'Be kind.'}]}, [SYSTEM, USER, REPLY]),
        ({'conversation': json.dumps([{'human': 'hi', 'assistant': 'hello'}])}, [USER, REPLY]),
        ({'conversation': [USER, REPLY]}, [USER, REPLY]),
        ({'conversations': [{'from': 'user', 'value': 'hi'}, {'from': 'assistant', 'value': 'hello'}]}, [USER, REPLY]),
        ({'conversations': [{'from': 'system', 'value': 'Be kind.'}, USER, REPLY]}, [SYSTEM, USER, REPLY]),
        ({'instruction': 'hi', 'answer': 'hello'}, [USER, REPLY]),
        ({'instruction': 'hi', 'input': None, 'output': 'hello', 'history': [['hi', 'hello']]}, [USER, REPLY] * 2),
        ({'prompt': [USER], 'completion': [REPLY]}, [USER, REPLY]),
        ({'prompt': [SYSTEM, USER], 'completion': 'hello'}, [SYSTEM, USER, REPLY]),
        ({'text': 'Once upon a time'}, [{'role': 'text', 'content': 'Once upon a time'}]),
        ({'text': 'Once', 'meta': {'source': 'x'}}, [{'role': 'text', 'content': 'Once'}]),
        ({'response': 'Once'}, [{'role': 'text', 'content': 'Once'}]),
    ],
)
def test_layouts(record, messages):
    assert to_conversation(record) == (messages, None)


@pytest.mark.parametrize(
    'turns',
    [
        [USER, {'role': 'assistant', 'content': None, 'tool_calls': [CALL]}, {'role': 'tool', 'content': '2'}, REPLY],
        [USER, {'role': 'tool_call', 'content': json.dumps(CALL['function'])}, {'role': 'tool', 'content': '2'}, REPLY],
        [
            {'from': 'human', 'value': 'hi'},
            {'from': 'function_call', 'value': json.dumps(CALL['function'])},
            {'from': 'observation', 'value': '2'},
            {'from': 'gpt', 'value': 'hello'},
        ],
        [USER, {'role': 'tool_call', 'content': [CALL]}, {'role': 'tool_response', 'content': '2'}, REPLY],
    ],
    ids=['openai', 'ms-swift', 'llama-factory', 'list'],
)
def test_tool_turns(turns):
    tool = {'name': 'f', 'parameters': {'type': 'object'}}
    for tools in ([tool], json.dumps([{'type': 'function', 'function': tool}])):
        messages, found = to_conversation({'messages': turns, 'tools': tools})
        assert messages == [
            USER,
            {'role': 'assistant', 'content': '', 'tool_calls': [CALL]},
            {'role': 'tool', 'content': '2'},
            REPLY,
        ]
        assert found == [{'type': 'function', 'function': tool}]


def test_calls_that_follow_each_other_are_one_turn():
    turns = [USER, {**REPLY, 'content': 'Let me see.'}]
    turns += [{'role': 'tool_call', 'content': json.dumps({'name': name, 'arguments': {}})} for name in 'ab']
    messages, _ = to_conversation({'messages': turns})
    assert [m['role'] for m in messages] == ['user', 'assistant']
    assert messages[1]['content'] == 'Let me see.'
    assert [c['function']['name'] for c in messages[1]['tool_calls']] == ['a', 'b']


def test_ids_and_thoughts_are_kept():
    made = {**CALL, 'id': 'call_1'}
    turns = [USER, {**REPLY, 'tool_calls': [made], 'reasoning_content': 'Well.'}]
    turns.append({'role': 'tool', 'content': '2', 'tool_call_id': 'call_1'})
    messages, _ = to_conversation({'messages': turns})
    assert messages[1]['tool_calls'] == [made]
    assert (messages[1]['reasoning_content'], messages[2]['tool_call_id']) == ('Well.', 'call_1')


def test_names_of_ones_own():
    info = DatasetInfo(
        'd', columns={'talk': 'messages'}, roles={'Me': 'user', 'It': 'assistant'}, role_key='who', content_key='what'
    )
    record = {'talk': [{'who': 'Me', 'what': 'hi'}, {'who': 'It', 'what': 'hello'}], 'messages': 'not these'}
    assert to_conversation(record, info=info) == ([USER, REPLY], None)
    info = DatasetInfo('d', columns={'input': 'query', 'target': 'response'})
    assert to_conversation({'input': 'hi', 'target': 'hello', 'kind': 'x'}, info=info) == ([USER, REPLY], None)


@pytest.mark.parametrize(
    ('record', 'part'),
    [
        ({'conversation': [{'human': 'hi', 'assistant': 3}]}, 'are not both text'),
        ({'conversation': 'not json'}, 'not valid JSON'),
        ({'messages': [USER, {'role': 'tool_call', 'content': '{"name"'}]}, 'is no JSON'),
        ({'messages': [USER, {'role': 'tool_call', 'content': '{"nome": "f"}'}]}, 'has no name'),
        ({'messages': [USER, {**REPLY, 'tool_calls': {'name': 'f'}}]}, 'not a list'),
        ({'messages': [{'role': ['user'], 'content': 'x'}]}, 'the role'),
        ({'response': 'hello', 'querry': 'hi'}, "did you mean 'query'"),
        ({'text': 3}, "'text' is a number"),
        ({'text': ''}, 'no '),
        ({'instruction': 'hi', 'input': 'there'}, "'instruction' but no 'output'"),
        ({'prompt': [USER], 'completion': 3}, 'no assistant message'),
    ],
)
def test_defects_are_named(record, part):
    with pytest.raises(RowError) as error:
        to_conversation(record)
    assert part in str(error.value) and '\n' not in str(error.value)


COLUMNS = ['messages', 'conversations', 'conversation', 'prompt', 'completion', 'text', 'tools', 'history', 'system']
COLUMNS += ['role', 'content', 'from', 'value', 'human', 'assistant', 'tool_calls', 'function', 'name', 'arguments']
COLUMNS += ['instruction', 'input', 'output', 'query', 'response', 'tool_call', 'user', 'A', 'B']
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(COLUMNS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(COLUMNS), inner, max_size=5),
    max_leaves=15,
)


@given(json_values, st.booleans())
def test_any_record_is_read_or_refused(record, answered):
    try:
        messages, _tools = to_conversation(record, answered)
    except RowError as error:
        assert str(error) and '\n' not in str(error)
    else:
        assert all(isinstance(message['content'], str | list) for message in messages)
        assert {message['role'] for message in messages} <= {'system', 'user', 'assistant', 'tool', 'text'}
