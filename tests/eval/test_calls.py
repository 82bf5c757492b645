"""Tool calls as text that can be compared, and as a server takes them."""

from swiftlite.eval.calls import api_messages, as_text


def test_one_text_for_one_call():
    row = {'type': 'function', 'function': {'name': 'f', 'arguments': {'b': 1, 'a': '城'}}}
    reply = {'id': 'x', 'type': 'function', 'function': {'name': 'f', 'arguments': '{"a": "城",  "b": 1}'}}
    assert as_text('', [row]) == as_text(None, [reply]) == '{"arguments": {"a": "城", "b": 1}, "name": "f"}'
    assert as_text('Well. ', [row, row]).count('\n') == 2
    assert as_text(None, None) == '' and as_text(' as it is ', None) == ' as it is '
    assert as_text('', [{'name': 'f', 'arguments': 'no json'}]) == '{"arguments": "no json", "name": "f"}'


def test_ids_tie_results_to_calls():
    call = {'function': {'name': 'f', 'arguments': {'a': 1}}}
    messages = [
        {'role': 'user', 'content': 'q', 'choices': ['A']},
        {'role': 'assistant', 'content': '', 'tool_calls': [call, call], 'loss': True},
        {'role': 'tool', 'content': '1'},
        {'role': 'tool', 'content': '2'},
    ]
    user, assistant, first, second = api_messages(messages)
    assert user == {'role': 'user', 'content': 'q'} and 'loss' not in assistant
    assert [made['id'] for made in assistant['tool_calls']] == [first['tool_call_id'], second['tool_call_id']]
    assert assistant['tool_calls'][0]['function']['arguments'] == '{"a": 1}'
